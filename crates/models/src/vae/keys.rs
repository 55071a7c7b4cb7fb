//! Names that older checkpoints use for the middle blocks' attention.

/// (Old part of a name, the part diffusers uses today).
const RENAMED: [(&str, &str); 4] =
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];

/// The name diffusers uses today for a tensor of an `AutoencoderKL` checkpoint.
pub fn modern_names(name: &str) -> String {
    if !name.contains(".attentions.") {
        return name.to_owned();
    }
    RENAMED.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attention_names_change() {
        assert_eq!(
            modern_names("encoder.mid_block.attentions.0.query.weight"),
            "encoder.mid_block.attentions.0.to_q.weight"
        );
        assert_eq!(
            modern_names("decoder.mid_block.attentions.0.proj_attn.bias"),
            "decoder.mid_block.attentions.0.to_out.0.bias"
        );
        assert_eq!(modern_names("encoder.conv_in.weight"), "encoder.conv_in.weight");
    }
}
