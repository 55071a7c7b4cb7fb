//! Which state of a run is the one to keep.

use super::Limits;
use crate::Probe;

/// How good a state is by its held-out pairs: their accuracy, less a half when winners' error has risen by
/// [`Limits::winner_critical`], less nothing up to [`Limits::winner_warning`], and on a line between and beyond. `None` without an
/// accuracy or a reference.
///
/// The model before its first step has 0.5, so a state beyond the critical limit is worth less than it, however many pairs it ranks
/// rightly. Neither accuracy nor margin alone will do: an over-optimized run raises both to its end, by making losers worse faster
/// than winners, while its images fall apart. The rising error of winners is what shows that.
pub fn quality(probe: &Probe, limits: &Limits) -> Option<f64> {
    let beyond = (probe.winner_rise()? - limits.winner_warning).max(0.0);
    let quality = probe.implicit_accuracy? - 0.5 * beyond / (limits.winner_critical - limits.winner_warning);
    quality.is_finite().then_some(quality)
}
