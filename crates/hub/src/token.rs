//! The secret that opens gated and private repositories.

use std::fmt;

use crate::HubError;

/// A bearer token. Nothing prints it: it has no `Display`, and its `Debug` says only that it is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in a text, white space around it taken away; `None` if nothing is left.
    ///
    /// # Errors
    /// [`HubError::Name`], without the text, for one that cannot stand in a header.
    pub fn new(text: &str) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Some(Self(text.to_owned())));
        }
        let wanted = "one line of ASCII without spaces";
        Err(HubError::Name { what: "token", found: "(not shown)".into(), wanted })
    }

    /// The header's value.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// A text with the token taken out.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        text.replace(&self.0, "(token)")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::new(" hf_secret\n").unwrap();
        assert_eq!(format!("{token:?} {token:#?}"), "Some(Token) Some(\n    Token,\n)");
        let error = Token::new("hf_secret and more").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hf_secret"));
    }

    #[test]
    fn an_empty_token_is_none() {
        assert_eq!(Token::new(" \n").unwrap(), None);
    }
}
