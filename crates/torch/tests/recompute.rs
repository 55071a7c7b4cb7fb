//! Parts computed again in the backward pass against the plain graph, bit for bit, and what happens to the part itself.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::cell::Cell;
use std::rc::Rc;
use std::thread;

use tastemaker_torch::error::guard;
use tastemaker_torch::products::{attention, conv2d, linear};
use tastemaker_torch::recompute::segment;
use tch::{Device, Kind, Tensor};

/// Values of no pattern between -1 and 1.
fn values(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 12.9898 + phase).sin().reshape(shape)
}

fn learning(shape: &[i64], phase: f64) -> Tensor {
    (values(shape, phase) * 0.3).set_requires_grad(true)
}

/// A residual block of a convolution, attention over positions with keys from a context, and a linear layer. Masters are f32.
struct Block {
    kernel: Tensor,
    query: Tensor,
    key: Tensor,
    out: Tensor,
    bias: Tensor,
    n_runs: Cell<usize>,
}

impl Block {
    fn new(i: usize) -> Self {
        let phase = i as f64;
        Self {
            kernel: learning(&[8, 8, 3, 3], phase),
            query: learning(&[8, 8], phase + 0.1),
            key: learning(&[8, 6], phase + 0.2),
            out: learning(&[8, 8], phase + 0.3),
            bias: learning(&[8], phase + 0.4),
            n_runs: Cell::new(0),
        }
    }

    fn parameters(&self) -> [&Tensor; 5] {
        [&self.kernel, &self.query, &self.key, &self.out, &self.bias]
    }

    /// x `[b, 8, h, w]`, context `[b, m, 6]`
    fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        self.n_runs.set(self.n_runs.get() + 1);
        let of = |parameter: &Tensor| parameter.to_kind(x.kind());
        let y = conv2d(x, &of(&self.kernel), None, 1, 1);
        let (b, c, h, w) = y.size4().unwrap();
        let rows = y.permute([0, 2, 3, 1]).reshape([b, h * w, c]);
        let heads = |t: Tensor| t.reshape([b, -1, 2, 4]).transpose(1, 2);
        let q = heads(linear(&rows, &of(&self.query), None));
        let k = heads(linear(context, &of(&self.key), None));
        let v = heads(linear(context, &of(&self.key), None).gelu("none"));
        let seen = attention(&q, &k, &v, false).transpose(1, 2).reshape([b, h * w, c]);
        let y = linear(&seen, &of(&self.out), Some(&of(&self.bias)));
        x + y.reshape([b, h, w, c]).permute([0, 3, 1, 2]) + x.silu()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum How {
    Plain,
    Segments,
    Nested,
}

fn run(block: &Rc<Block>, x: &Tensor, context: &Tensor, how: How) -> Tensor {
    let (inputs, block) = ([x.alias(), context.alias()], Rc::clone(block));
    match how {
        How::Plain => block.forward(&inputs[0], &inputs[1]),
        How::Segments => segment(&inputs, move |inputs| block.forward(&inputs[0], &inputs[1])),
        How::Nested => segment(&inputs, move |inputs| run(&block, &inputs[0], &inputs[1], How::Segments)),
    }
}

/// Outputs and all gradients of three blocks with a skip over the second, after two backward passes that accumulate.
fn gradients(how: How, kind: Kind, inputs_learn: bool) -> Vec<Tensor> {
    let blocks: Vec<_> = (0..3).map(|i| Rc::new(Block::new(i))).collect();
    let x = values(&[2, 8, 6, 5], 9.0).set_requires_grad(inputs_learn);
    let context = values(&[2, 7, 6], 8.0).set_requires_grad(inputs_learn);
    let mut found = Vec::new();
    for step in 0..2 {
        let scale = f64::from(step) + 0.7;
        let (narrow, context) = ((&x * scale).to_kind(kind), context.to_kind(kind));
        let first = run(&blocks[0], &narrow, &context, how);
        let second = run(&blocks[1], &first, &context, how);
        let y = run(&blocks[2], &(second + &first), &context, how);
        y.to_kind(Kind::Float).square().mean(Kind::Float).backward();
        found.push(y.detach());
    }
    for tensor in blocks.iter().flat_map(|block| block.parameters()).chain([&x, &context]) {
        let gradient = tensor.grad();
        if gradient.defined() {
            found.push(gradient);
        }
    }
    let n_runs = match how {
        How::Plain => 2,
        How::Segments => 4,
        How::Nested => 6,
    };
    assert!(blocks.iter().all(|block| block.n_runs.get() == n_runs && Rc::strong_count(block) == 1));
    found
}

#[test]
fn gradients_are_those_of_the_plain_graph_bit_for_bit() {
    for kind in [Kind::Float, Kind::BFloat16] {
        for inputs_learn in [false, true] {
            let wanted = gradients(How::Plain, kind, inputs_learn);
            assert_eq!(wanted.len(), if inputs_learn { 2 + 15 + 2 } else { 2 + 15 });
            for how in [How::Segments, How::Nested] {
                let found = gradients(how, kind, inputs_learn);
                assert_eq!(found.len(), wanted.len());
                for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                    assert!(found.equal(wanted), "{kind:?}, inputs learn: {inputs_learn}, tensor {i}");
                    assert!(wanted.abs().max().double_value(&[]) > 0.0);
                }
            }
        }
    }
}

#[test]
fn without_gradients_a_part_runs_once_and_is_gone() {
    let block = Rc::new(Block::new(0));
    let y =
        tch::no_grad(|| run(&block, &values(&[1, 8, 4, 4], 0.0), &values(&[1, 3, 6], 1.0), How::Segments));
    assert!(!y.requires_grad());
    assert_eq!((block.n_runs.get(), Rc::strong_count(&block)), (1, 1));
}

#[test]
fn a_part_is_dropped_with_a_graph_that_is_never_differentiated() {
    let block = Rc::new(Block::new(0));
    let y = run(&block, &values(&[1, 8, 4, 4], 0.0), &values(&[1, 3, 6], 1.0), How::Segments);
    assert!(y.requires_grad());
    assert_eq!(Rc::strong_count(&block), 2);
    drop(y);
    assert_eq!((block.n_runs.get(), Rc::strong_count(&block)), (1, 1));
}

#[test]
fn a_part_in_which_nothing_learns_passes_the_gradient_by() {
    let (x, w) = (values(&[4], 0.0), values(&[4], 1.0).set_requires_grad(true));
    let y = segment(&[x], |inputs| inputs[0].square()) + &w;
    y.sum(Kind::Float).backward();
    assert!(w.grad().equal(&Tensor::ones([4], (Kind::Float, Device::Cpu))));
}

#[test]
fn the_graph_is_built_in_the_backward_pass_and_not_before() {
    let recorded = Rc::new(Cell::new(0));
    let x = values(&[16], 0.0).set_requires_grad(true);
    let y = segment(&[x.shallow_clone()], {
        let recorded = Rc::clone(&recorded);
        move |inputs| {
            let y = inputs[0].exp();
            recorded.set(recorded.get() + i32::from(y.requires_grad()));
            y
        }
    });
    assert_eq!(recorded.get(), 0);
    y.sum(Kind::Float).backward();
    assert_eq!(recorded.get(), 1);
    assert!(x.grad().equal(&y.detach()));
}

#[test]
fn a_panic_in_the_backward_pass_arrives_with_its_words_and_leaves_everything_usable() {
    let (x, held) = (values(&[3], 0.0).set_requires_grad(true), Rc::new(()));
    let broken = || {
        let (held, first) = (Rc::clone(&held), Cell::new(true));
        segment(&[x.shallow_clone()], move |inputs| {
            let _held = &held;
            assert!(first.replace(false), "no second time");
            &inputs[0] * 2.0
        })
    };
    let y = broken().sum(Kind::Float);
    let error = guard("going back", "", || y.backward()).unwrap_err().to_string();
    assert!(error.contains("no second time"), "{error}");
    drop(y);
    assert_eq!(Rc::strong_count(&held), 1);
    segment(&[x.shallow_clone()], |inputs| &inputs[0] * 2.0).sum(Kind::Float).backward();
    assert_eq!(Vec::<f32>::try_from(x.grad()).unwrap(), [2.0; 3]);
}

#[test]
fn a_refusal_of_libtorch_in_the_backward_pass_arrives_with_its_words() {
    let (x, n_runs) = (values(&[2, 3], 0.0).set_requires_grad(true), Cell::new(0));
    let y = segment(&[x], move |inputs| {
        n_runs.set(n_runs.get() + 1);
        if n_runs.get() == 1 { inputs[0].square() } else { inputs[0].matmul(&inputs[0]) }
    });
    let error = guard("going back", "", || y.sum(Kind::Float).backward()).unwrap_err().to_string();
    assert!(error.contains("shapes cannot be multiplied"), "{error}");
}

#[test]
fn an_input_changed_in_between_is_refused() {
    let w = values(&[3], 0.0).set_requires_grad(true);
    let mut x = &w * 2.0;
    let y = segment(&[x.shallow_clone()], |inputs| inputs[0].square()).sum(Kind::Float);
    let _ = tch::no_grad(|| x.fill_(1.0));
    let error = guard("going back", "", || y.backward()).unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
}

#[test]
fn gradients_of_chosen_tensors_and_second_derivatives_are_refused() {
    let x = values(&[3], 0.0).set_requires_grad(true);
    let y = || segment(&[x.shallow_clone()], |inputs| inputs[0].square()).sum(Kind::Float);
    let error = Tensor::f_run_backward(&[y()], &[&x], false, false).unwrap_err().to_string();
    assert!(error.contains("gradients of all leaves"), "{error}");
    let error = Tensor::f_run_backward(&[y()], &[&x], true, true).unwrap_err().to_string();
    assert!(error.contains("no second derivative"), "{error}");
}

#[test]
fn another_thread_neither_runs_a_part_nor_drops_it() {
    /// Says where it was dropped.
    struct Told(Rc<Cell<Option<thread::ThreadId>>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(Some(thread::current().id()));
        }
    }
    let dropped = Rc::new(Cell::new(None));
    let (told, x) = (Told(Rc::clone(&dropped)), values(&[3], 0.0).set_requires_grad(true));
    let y = segment(&[x.shallow_clone()], move |inputs| {
        let _told = &told;
        inputs[0].square()
    });
    let error = thread::spawn(move || {
        let sum = y.sum(Kind::Float);
        drop(y);
        guard("going back", "", || sum.backward()).unwrap_err().to_string()
    });
    let error = error.join().unwrap();
    assert!(error.contains("another thread than its forward pass"), "{error}");
    assert_eq!((dropped.get(), Rc::strong_count(&dropped)), (None, 2));
    drop(segment(&[x], |inputs| inputs[0].square()));
    assert_eq!((dropped.get(), Rc::strong_count(&dropped)), (Some(thread::current().id()), 1));
}
