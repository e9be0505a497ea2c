//! The set of sequences a receiver has accepted: intervals, never a high-water mark.

use serde::{Deserialize, Serialize};

/// A set of `u64` kept as sorted, disjoint, non-adjacent inclusive intervals.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IntervalSet(Vec<(u64, u64)>);

impl IntervalSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one number; false when it was already there.
    pub fn insert(&mut self, value: u64) -> bool {
        if self.contains(value) {
            return false;
        }
        self.insert_range(value, value);
        true
    }

    /// Adds `first..=last`; does nothing when `first > last`.
    pub fn insert_range(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        // All intervals that touch or adjoin the new one melt into it.
        let from = self
            .0
            .partition_point(|(_, end)| end.checked_add(1).is_some_and(|next| next < first));
        let to = self
            .0
            .partition_point(|(start, _)| last.checked_add(1).is_none_or(|next| *start <= next));
        let merged = self.0[from..to]
            .iter()
            .fold((first, last), |(low, high), (start, end)| {
                (low.min(*start), high.max(*end))
            });
        self.0.splice(from..to, [merged]);
    }

    /// Whether the number is in the set.
    pub fn contains(&self, value: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < value);
        self.0.get(at).is_some_and(|(start, _)| *start <= value)
    }

    /// Whether all of `first..=last` is in the set; an empty range is.
    pub fn contains_range(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < first);
        first > last
            || self
                .0
                .get(at)
                .is_some_and(|(start, end)| *start <= first && last <= *end)
    }

    /// The holes between 0 and the largest number, as inclusive ranges.
    pub fn gaps(&self) -> Vec<(u64, u64)> {
        let mut next = 0;
        let mut gaps = Vec::new();
        for (start, end) in &self.0 {
            if *start > next {
                gaps.push((next, start - 1));
            }
            next = end.saturating_add(1);
        }
        gaps
    }

    /// The largest number.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|(_, end)| *end)
    }

    /// How many numbers are in the set; saturates.
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, (start, end)| {
            sum.saturating_add((end - start).saturating_add(1))
        })
    }

    /// The intervals in order, inclusive.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(ranges in prop::collection::vec((0u64..60, 0u64..6), 0..40)) {
            let mut set = IntervalSet::new();
            let mut model = BTreeSet::new();
            for (first, length) in ranges {
                set.insert_range(first, first + length);
                model.extend(first..=first + length);
            }
            for value in 0..80 {
                prop_assert_eq!(set.contains(value), model.contains(&value));
            }
            for (first, last) in [(0, 80), (7, 9), (9, 7), (30, 30)] {
                let all = (first..=last).all(|value| model.contains(&value));
                prop_assert_eq!(set.contains_range(first, last), all);
            }
            prop_assert_eq!(set.count(), model.len() as u64);
            let holes: Vec<u64> = set.gaps().into_iter().flat_map(|(a, b)| a..=b).collect();
            let last = model.last().copied();
            let expected: Vec<u64> = (0..last.unwrap_or(0)).filter(|v| !model.contains(v)).collect();
            prop_assert_eq!(holes, expected);
            let intervals: Vec<_> = set.iter().collect();
            prop_assert!(intervals.windows(2).all(|w| w[0].1 + 1 < w[1].0));
        }
    }

    #[test]
    fn the_ends_of_the_range_are_ordinary_numbers() {
        let mut set = IntervalSet::new();
        assert!(set.insert(u64::MAX) && set.insert(u64::MAX - 1) && set.insert(0));
        assert!(!set.insert(u64::MAX));
        assert_eq!(set.gaps(), [(1, u64::MAX - 2)]);
        assert_eq!(set.count(), 3);
        assert!(set.contains_range(u64::MAX - 1, u64::MAX) && !set.contains_range(0, u64::MAX));
    }
}
