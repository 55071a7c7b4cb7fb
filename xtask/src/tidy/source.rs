//! Rust source without comments, literals and tests, so that a search finds code and nothing else.

/// `text` with the contents of comments, strings and character literals blanked. Lines keep their numbers and lengths in
/// characters.
pub fn code(text: &str) -> String {
    blank(text, true)
}

/// `text` with comments blanked and literals kept.
pub fn code_and_literals(text: &str) -> String {
    blank(text, false)
}

/// Blanks the bodies of items marked `#[cfg(test)]` in `code`, which must come from [`code`].
pub fn without_tests(code: &str) -> String {
    let mut bytes = code.as_bytes().to_vec();
    for (start, _) in code.match_indices("#[cfg(test)]") {
        let end = item_end(code, start);
        bytes[start..end].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
    }
    // Only whole items were overwritten, so the rest is the valid text it was.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where the item that starts at `start` ends: after its braces, or at its semicolon.
pub(super) fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, character) in code[start..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth <= 1 => return start + offset + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return start + offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str, literals: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        let (length, hide) = token(rest, previous);
        let (piece, after) = rest.split_at(length);
        match hide {
            Hide::Nothing => out.push_str(piece),
            Hide::Literal if !literals => out.push_str(piece),
            Hide::Literal | Hide::Comment => {
                out.extend(piece.chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
            }
        }
        previous = first;
        rest = after;
    }
    out
}

enum Hide {
    Nothing,
    Literal,
    Comment,
}

/// The length in bytes of what `rest` begins with, and whether it is code. `previous` is the character before it: an `r`
/// or a quote inside a word starts no literal.
fn token(rest: &str, previous: char) -> (usize, Hide) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), Hide::Comment);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), Hide::Comment);
    }
    let in_word = previous.is_alphanumeric() || previous == '_';
    if !in_word && let Some(length) = raw_string(rest) {
        return (length, Hide::Literal);
    }
    if rest.starts_with('"') {
        return (quoted(rest, '"').unwrap_or(rest.len()), Hide::Literal);
    }
    if rest.starts_with('\'')
        && let Some(length) = character(rest)
    {
        return (length, Hide::Literal);
    }
    (first, Hide::Nothing)
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let tail = &rest.as_bytes()[at..];
        if tail.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let start =
        rest.strip_prefix("br").or_else(|| rest.strip_prefix("cr")).or_else(|| rest.strip_prefix('r'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let body = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let open = rest.len() - body.len();
    Some(body.find(&end).map_or(rest.len(), |at| open + at + end.len()))
}

fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(at + quote.len_utf8());
        }
    }
    None
}

/// A character literal, and not a lifetime: `'a'` or `'\n'`.
fn character(rest: &str) -> Option<usize> {
    let mut characters = rest.chars().skip(1);
    let escaped = characters.next()? == '\\';
    if escaped || characters.next()? == '\'' { quoted(rest, '\'') } else { None }
}

#[cfg(test)]
mod tests {
    use super::{code, code_and_literals, without_tests};

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "let a = \"x // y\"; // unsafe\n/* a /* b */ c */ let b = r#\"q\"q\"#;\nlet c = '\"'; let d: &'a str;\n";
        let code = code(text);
        assert_eq!(code.lines().count(), text.lines().count());
        for hidden in ["unsafe", "x", "y", "q", " c ", "\""] {
            assert!(!code.replace("let c ", "").contains(hidden), "{hidden}: {code}");
        }
        assert!(code.contains("let b = ") && code.contains("let d: &'a str;"), "{code}");
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_string() {
        assert_eq!(code(r#"f("a\"b", '\'', x)"#), "f(      ,     , x)");
    }

    #[test]
    fn literals_can_be_kept() {
        assert_eq!(code_and_literals("f(\"a\") // b"), "f(\"a\")     ");
    }

    #[test]
    fn test_modules_and_test_items_are_blanked() {
        let text = "fn a() { b }\n#[cfg(test)]\nmod tests { fn c() { d } }\nfn e() {}\n#[cfg(test)]\nuse f;\nuse g;\n";
        let code = without_tests(&code(text));
        assert_eq!(code.lines().count(), text.lines().count());
        for kept in ["fn a() { b }", "fn e() {}", "use g;"] {
            assert!(code.contains(kept), "{code}");
        }
        for hidden in ["tests", "fn c", "use f"] {
            assert!(!code.contains(hidden), "{code}");
        }
    }
}
