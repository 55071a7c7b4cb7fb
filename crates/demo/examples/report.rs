//! Writes a report about made-up results, to look at its design: `cargo run -p tastemaker-demo --example report -- FOLDER`.

#[expect(dead_code, reason = "only the tests build the small report")]
#[path = "../tests/support/made_up.rs"]
mod made_up;

use std::path::PathBuf;

use tastemaker_demo::report::extras;
use tastemaker_eval::EvalError;
use tastemaker_eval::compare::{Results, write};

fn main() -> Result<(), EvalError> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("report-example"), PathBuf::from);
    let (comparison, details) = made_up::demo(made_up::Size::Full);
    let results = Results::of(&comparison)?;
    let page = write(&comparison, &results, &extras(&comparison, &results, &details), folder)?;
    println!("wrote {}", page.display());
    Ok(())
}
