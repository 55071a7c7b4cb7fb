//! Element types in libtorch.

use tastemaker_store::dtype::DType;
use tch::Kind;

/// The libtorch element type.
pub fn kind_of(dtype: DType) -> Kind {
    match dtype {
        DType::F32 => Kind::Float,
        DType::F16 => Kind::Half,
        DType::Bf16 => Kind::BFloat16,
    }
}
