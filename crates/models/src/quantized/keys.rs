//! Names of what stands beside a weight of few bits.
//!
//! Sources: comfyanonymous/ComfyUI:comfy/ops.py and comfy/model_detection.py; kohya-ss/musubi-tuner:modules/fp8_optimization_utils.py;
//! bitsandbytes:functional.py (`QuantState.as_dict`) and nn/modules.py (`Linear8bitLt`).

/// The end of a weight's own name.
pub(super) const WEIGHT: &str = ".weight";

/// The scale of a layer's codes: ComfyUI's first spelling, which musubi-tuner has too, and the later one.
pub(super) const SCALES: [&str; 2] = [".scale_weight", ".weight_scale"];

/// The scale of a layer's inputs, for products in few bits; and JSON about a layer's format. Neither changes what a weight is.
pub(super) const OF_INPUTS: [&str; 2] = [".scale_input", ".input_scale"];

/// JSON about a layer.
pub(super) const ABOUT_LAYER: &str = ".comfy_quant";

/// The marker of a file, below whatever prefix; its type is that of the codes.
pub(super) const MARKER: &str = "scaled_fp8";

/// Entry of a file's header: JSON about all layers.
pub(crate) const ABOUT_FILE: &str = "_quantization_metadata";

/// Formats of ComfyUI in which a weight is its codes times its scale.
pub(super) const SCALED_FORMATS: [&str; 3] = ["float8_e4m3fn", "float8_e5m2", "int8_tensorwise"];

/// What ComfyUI says about a layer: its format, and whether products are in full precision, as ours are.
pub(super) const ABOUT_KEYS: [&str; 2] = ["format", "full_precision_matrix_mult"];

/// The largest absolute value of each row, of bitsandbytes' int8; and its layout, a number that must be 0, rows.
pub(super) const ROW_MAXIMA: &str = ".SCB";
pub(super) const ROW_LAYOUT: &str = ".weight_format";

/// What stands beside a weight of 4 bits, after its name.
pub(super) mod nf4 {
    /// JSON with shape and block sizes.
    pub const STATE: &str = ".quant_state.bitsandbytes__nf4";
    /// Another format of the same package.
    pub const STATE_OF_FP4: &str = ".quant_state.bitsandbytes__fp4";
    /// The values of the 16 codes.
    pub const MAP: &str = ".quant_map";
    /// Scales of blocks.
    pub const ABSMAX: &str = ".absmax";
    /// Scales of scales in 8 bits, and the values of their codes.
    pub const NESTED_ABSMAX: &str = ".nested_absmax";
    /// See [`NESTED_ABSMAX`].
    pub const NESTED_MAP: &str = ".nested_quant_map";
}
