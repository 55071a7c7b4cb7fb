//! Which kernels libtorch may take on a CUDA device where there are several.

use std::ffi::c_char;

use crate::shim::attempt;

/// What is allowed in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kernels {
    /// f32 products of matrices rounded to TF32, as `torch.backends.cuda.matmul.allow_tf32`. Convolutions are, as PyTorch has it.
    pub tf32: bool,
    /// cuDNN's fused attention. Its plans with and without a graph differ, and with them policy and reference before the first
    /// step; the other fused kernels give the same bits.
    pub cudnn_attention: bool,
}

impl Kernels {
    /// Allows these and no others, for the whole process.
    ///
    /// # Panics
    /// With libtorch's words.
    pub fn allow(self) {
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: two flags and where to put a message.
        let done =
            attempt(|error| unsafe { tastemaker_allow_kernels(self.tf32, self.cudnn_attention, error) });
        done.expect("libtorch takes both settings with and without a device");
    }

    /// What is allowed now.
    ///
    /// # Panics
    /// With libtorch's words.
    pub fn allowed() -> Self {
        let mut allowed = Self::default();
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the pointers are those of two flags.
        let done = attempt(|error| unsafe {
            tastemaker_allowed_kernels(&raw mut allowed.tf32, &raw mut allowed.cudnn_attention, error)
        });
        done.expect("libtorch says both settings with and without a device");
        allowed
    }
}

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_allow_kernels(tf32: bool, cudnn_attention: bool, error: *mut *mut c_char) -> bool;
    fn tastemaker_allowed_kernels(
        tf32: *mut bool,
        cudnn_attention: *mut bool,
        error: *mut *mut c_char,
    ) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_may_be_taken() {
        assert!(Kernels::allowed().cudnn_attention, "libtorch's own choice");
        for kernels in [
            Kernels { tf32: true, cudnn_attention: true },
            Kernels { tf32: true, cudnn_attention: false },
            Kernels::default(),
        ] {
            kernels.allow();
            assert_eq!(Kernels::allowed(), kernels);
        }
    }
}
