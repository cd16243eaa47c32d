//! The mix of requests: which operations, in which proportions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Op {
    /// A new data key.
    Generate,
    /// Encrypt some bytes.
    Encrypt,
    /// Decrypt them again.
    Decrypt,
}

impl Op {
    /// All of them, in the order of reports.
    pub(super) const ALL: [Self; 3] = [Self::Generate, Self::Encrypt, Self::Decrypt];

    fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A sequence of requests in which every kind has its weight, as evenly spread as can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mix(Vec<Op>);

impl Mix {
    /// Parses `generate=3,decrypt`; the weight is 1 where none is given, and at most 1,000.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut weights = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let op = Op::ALL.into_iter().find(|op| op.name() == name.trim());
            let op = op.ok_or_else(|| format!("'{name}' is not generate, encrypt or decrypt"))?;
            let weight = weight.trim().parse::<u32>().ok().filter(|weight| (1..=1_000).contains(weight));
            let weight = weight.ok_or("a weight is a number from 1 to 1000")?;
            if weights.iter().any(|(seen, _)| *seen == op) {
                return Err(format!("'{name}' stands there twice"));
            }
            weights.push((op, weight));
        }
        Ok(Self(spread(&weights)))
    }

    /// The sequence, to be repeated.
    pub(super) fn sequence(&self) -> &[Op] {
        &self.0
    }
}

/// At every step the kind that lags behind its share most.
fn spread(weights: &[(Op, u32)]) -> Vec<Op> {
    let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
    let mut done = vec![0; weights.len()];
    let mut sequence = Vec::with_capacity(total as usize);
    for step in 1..=i64::from(total) {
        let lag = |at: &usize| step * i64::from(weights[*at].1) - i64::from(total) * done[*at];
        let next =
            (0..weights.len()).max_by_key(|at| (lag(at), std::cmp::Reverse(*at))).expect("there is one at least");
        done[next] += 1;
        sequence.push(weights[next].0);
    }
    sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_share() {
        let mix = Mix::parse("generate=3, decrypt").expect("valid");
        assert_eq!(mix.sequence(), [Op::Generate, Op::Generate, Op::Decrypt, Op::Generate]);
        assert_eq!(Mix::parse("encrypt").expect("valid").sequence(), [Op::Encrypt]);
        let mix = Mix::parse("generate=5,encrypt=2,decrypt=3").expect("valid");
        let count = |op| mix.sequence().iter().filter(|other| **other == op).count();
        assert_eq!(Op::ALL.map(count), [5, 2, 3]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "delete", "generate=0", "generate=x", "generate=1001", "generate,generate", "generate,"] {
            assert!(Mix::parse(bad).is_err(), "{bad}");
        }
    }
}
