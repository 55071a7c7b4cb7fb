//! What models hold on disk.

use tastemaker_models::nn::TensorSource;
use tastemaker_models::pipeline::Model;
use tastemaker_torch::tensors::Named;

/// All stored tensors of a component.
pub fn weights(model: &Model, component: &str) -> Named {
    let stored = model.stored(component).unwrap();
    stored.names().into_iter().map(|name| (name.clone(), stored.read(&name).unwrap())).collect()
}

/// A component is stored alike in both, to the last bit.
pub fn assert_same(found: &Model, wanted: &Model, component: &str) {
    let (found, wanted) = (weights(found, component), weights(wanted, component));
    assert!(found.keys().eq(wanted.keys()), "{component}");
    assert!(wanted.iter().all(|(name, tensor)| found[name].equal(tensor)), "{component}");
}
