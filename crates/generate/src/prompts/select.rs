//! Which prompts of a set are used.

use super::PromptSet;

/// Numbers of the prompts of these categories (of all for none), at most `n` of them, spread evenly over the set.
///
/// # Errors
/// A category that the set does not have, or that leaves nothing; in words.
pub fn select(set: &PromptSet, categories: &[String], n: Option<usize>) -> Result<Vec<usize>, String> {
    let known = set.categories();
    let has = |category: &str| known.iter().any(|(name, _)| name.eq_ignore_ascii_case(category));
    if let Some(unknown) = categories.iter().find(|category| !has(category)) {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(format!("no prompt is of category `{unknown}`; {} has {there}", set.name));
    }
    let wanted = |category: Option<&str>| {
        let among = |category: &str| categories.iter().any(|wanted| wanted.eq_ignore_ascii_case(category));
        categories.is_empty() || category.is_some_and(among)
    };
    let fitting: Vec<usize> = set
        .used()
        .filter(|(_, prompt)| wanted(prompt.category.as_deref()))
        .map(|(number, _)| number)
        .collect();
    let n = n.unwrap_or(fitting.len()).min(fitting.len());
    match n {
        0 => Err("no prompt is left; wanted at least one".to_owned()),
        _ => Ok((0..n).map(|k| fitting[k * fitting.len() / n]).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> PromptSet {
        let rows =
            (0..10).map(|i| (format!("prompt {i}"), Some(if i < 6 { "Animals" } else { "Arts" }.to_owned())));
        PromptSet::new("made-up", rows)
    }

    #[test]
    fn fewer_prompts_are_spread_over_the_whole_set() {
        assert_eq!(select(&set(), &[], Some(5)), Ok(vec![0, 2, 4, 6, 8]));
        assert_eq!(select(&set(), &[], None).map(|all| all.len()), Ok(10));
        assert_eq!(select(&set(), &[], Some(99)).map(|all| all.len()), Ok(10));
    }

    #[test]
    fn categories_are_found_whatever_their_case() {
        assert_eq!(select(&set(), &["arts".into()], None), Ok(vec![6, 7, 8, 9]));
        assert_eq!(select(&set(), &["arts".into(), "animals".into()], Some(2)), Ok(vec![0, 5]));
    }

    #[test]
    fn a_category_that_is_not_there_is_named_with_those_that_are() {
        let error = select(&set(), &["people".into()], None).unwrap_err();
        assert_eq!(error, "no prompt is of category `people`; made-up has Animals, Arts");
        assert_eq!(select(&set(), &[], Some(0)).unwrap_err(), "no prompt is left; wanted at least one");
    }
}
