//! Pages: cuts a listing into parts that a client can take at once.

use std::borrow::Borrow;

use super::Pattern;

/// The size of a page in bytes of JSON: well inside the 1 MiB at which clients stop to read.
const PAGE: usize = 1_000_000;

/// Part of a listing.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<N> {
    /// Sorted names.
    pub names: Vec<N>,
    /// The pattern that asks for the next page; none on the last one.
    pub continue_at: Option<String>,
}

impl<N: Borrow<str> + Clone> Page<N> {
    /// The names of `all` (sorted) that `pattern` asks for, as many as fit a page.
    pub fn after(pattern: &Pattern, all: &[N]) -> Self {
        let first = pattern.after().map_or(0, |last| all.partition_point(|name| Borrow::<str>::borrow(name) <= last));
        Self::of(pattern, all[first..].iter())
    }

    /// As many as fit a page of `rest`: the sorted names that `pattern` asks for and that no page before it had.
    pub fn of<'n>(pattern: &Pattern, rest: impl Iterator<Item = &'n N>) -> Self
    where
        N: 'n,
    {
        let (mut names, mut size) = (Vec::<N>::new(), 0);
        for name in rest {
            size += Borrow::<str>::borrow(name).len() + 3; // two quotes, a comma
            if size > PAGE {
                let continue_at = names.last().map(|last| pattern.continue_at(last.borrow()));
                return Self { names, continue_at };
            }
            names.push(name.clone());
        }
        Self { names, continue_at: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::KeyName;

    fn names(count: usize) -> Vec<KeyName> {
        (0..count).map(|n| KeyName::parse(&format!("key-{n:060}")).expect("valid")).collect()
    }

    #[test]
    fn pages_hold_every_name_once() {
        let all = names(100_000);
        let mut pattern = Pattern::parse("key*").expect("valid");
        let mut seen = Vec::new();
        loop {
            let page = Page::after(&pattern, &all);
            assert!(page.names.iter().map(|name| name.as_str().len() + 3).sum::<usize>() <= PAGE);
            seen.extend(page.names);
            let Some(next) = page.continue_at else { break };
            pattern = Pattern::parse(&next).expect("a token is a pattern");
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn a_page_goes_on_after_a_name_that_was_deleted() {
        let all = names(10);
        let pattern = Pattern::parse(&Pattern::parse("").expect("valid").continue_at(all[4].as_str())).expect("valid");
        let mut fewer = all.clone();
        fewer.remove(4);
        assert_eq!(Page::after(&pattern, &fewer).names, all[5..]);
    }
}
