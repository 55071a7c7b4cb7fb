//! The mathematics of preference alignment, without tensors and without input or output.
//!
//! * [`schedule`]: noise levels, and how images, noise and regression targets mix at each of them;
//! * [`level`]: a place on a schedule, which training and samplers pass on;
//! * [`flow`]: the levels of flow models, visited and trained at;
//! * [`ddim`]: one sampler step, towards the image or towards noise, as three scalars;
//! * [`samplers`]: whole ways from noise to image, and the list of them;
//! * [`dual`]: numbers that carry their derivative with respect to the winner's and the loser's error;
//! * [`objectives`]: the preference methods, one file each, and the list of them;
//! * [`keyed`] and [`permutation`]: random numbers and orders that are pure functions of their key;
//! * [`agreement`]: what several voters decide, and how far they agree;
//! * [`intervals`]: how sure a win rate, a mean or a median is;
//! * [`nearest`]: what a misspelled name probably meant;
//! * [`number`]: numbers as people write them.
//!
//! Everything is `f64`. The engine measures one mean squared error per image, an [`objectives::Objective`]
//! returns the loss and its derivative with respect to those errors, and the engine back-propagates the
//! weighted sum of errors: exactly the gradient of the loss.

pub mod agreement;
pub mod ddim;
pub mod dual;
pub mod flow;
pub mod intervals;
pub mod keyed;
pub mod level;
pub mod nearest;
mod number;
pub mod objectives;
pub mod permutation;
pub mod samplers;
pub mod schedule;

pub use dual::Dual;
pub use keyed::{Keyed, Stream};
pub use level::Level;
pub use number::number;
pub use permutation::Permutation;
pub use samplers::{SAMPLERS, Sampler};
pub use schedule::{BetaSchedule, NoiseSchedule, Prediction, ScheduleError};
