//! Writes a report about made-up results, to look at its design: `cargo run --example report -- FOLDER`.

#[expect(dead_code, reason = "only the tests build the small report")]
#[path = "../tests/support/made_up.rs"]
mod made_up;

use std::path::PathBuf;
use tastemaker_eval::{EvalError, report};

fn main() -> Result<(), EvalError> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("report-example"), PathBuf::from);
    let page = report::write(&made_up::report(made_up::Size::Full), folder)?;
    println!("wrote {}", page.display());
    Ok(())
}
