//! Names in ImageReward.pt, which are our own names too.

/// What stands before the names of the image tower.
pub(super) const VISION: &str = "blip.visual_encoder";

/// What stands before the names of the text encoder.
pub(super) const TEXT: &str = "blip.text_encoder";

/// What stands before the names of the head.
pub(super) const HEAD: &str = "mlp";

/// Tensors of the file that scoring does not use: position numbers, and what BLIP was pre-trained with.
const UNUSED: [&str; 12] = [
    "blip.text_encoder.embeddings.position_ids",
    "blip.vision_proj.",
    "blip.text_proj.",
    "blip.visual_encoder_m.",
    "blip.vision_proj_m.",
    "blip.text_encoder_m.",
    "blip.text_proj_m.",
    "blip.text_decoder.",
    "blip.itm_head.",
    "blip.image_queue",
    "blip.text_queue",
    "blip.queue_ptr",
];

/// The learned temperature of BLIP's pre-training.
const TEMPERATURE: &str = "blip.temp";

/// Whether scoring does without a tensor of the file.
pub(super) fn is_unused(name: &str) -> bool {
    name == TEMPERATURE || UNUSED.iter().any(|unused| name.starts_with(unused))
}
