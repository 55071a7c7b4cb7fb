//! The factor on the loss that keeps half precision's small gradients from vanishing.

use tch::{Kind, Tensor};

/// A factor that falls when gradients overflow and rises again when they have not for long.
///
/// Source: `torch.amp.GradScaler` with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradScaler {
    /// The factor, a power of two.
    pub factor: f64,
    good_steps: u64,
}

impl Default for GradScaler {
    fn default() -> Self {
        Self { factor: 65_536.0, good_steps: 0 }
    }
}

impl GradScaler {
    const GROWTH_INTERVAL: u64 = 2000;
    /// Below this an overflow is no matter of scale.
    const SMALLEST: f64 = 1.0 / 65_536.0;

    /// Takes in whether a step's gradients were finite. Returns whether training can continue.
    pub fn update(&mut self, finite: bool) -> bool {
        if finite {
            self.good_steps += 1;
            if self.good_steps == Self::GROWTH_INTERVAL {
                *self = Self { factor: 2.0 * self.factor, good_steps: 0 };
            }
            return true;
        }
        *self = Self { factor: 0.5 * self.factor, good_steps: 0 };
        self.factor >= Self::SMALLEST
    }

    /// Its numbers as a tensor.
    pub fn state(&self) -> (String, Tensor) {
        ("loss_scale".to_owned(), Tensor::from_slice(&[self.factor, self.good_steps as f64]))
    }

    /// From the tensor that [`GradScaler::state`] saved.
    pub fn restored(stored: Option<Tensor>) -> Option<Self> {
        let stored = stored.filter(|stored| stored.size() == [2] && stored.kind() == Kind::Double)?;
        let (factor, good_steps) = (stored.double_value(&[0]), stored.double_value(&[1]));
        let fits =
            factor.is_finite() && factor > 0.0 && (0.0..Self::GROWTH_INTERVAL as f64).contains(&good_steps);
        fits.then_some(Self { factor, good_steps: good_steps as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_halves_and_two_thousand_good_steps_double() {
        let mut scale = GradScaler::default();
        assert!(scale.update(false));
        assert_eq!(scale.factor, 32_768.0);
        (0..1999).for_each(|_| assert!(scale.update(true)));
        assert_eq!(scale.factor, 32_768.0);
        assert!(scale.update(true));
        assert_eq!(scale.factor, 65_536.0);
    }

    #[test]
    fn overflows_without_end_are_no_matter_of_scale() {
        let mut scale = GradScaler::default();
        let n = (0..100).take_while(|_| scale.update(false)).count();
        assert_eq!(n, 32);
    }

    #[test]
    fn its_state_is_the_scale() {
        let mut scale = GradScaler::default();
        scale.update(false);
        (0..7).for_each(|_| assert!(scale.update(true)));
        assert_eq!(GradScaler::restored(Some(scale.state().1)), Some(scale));
    }
}
