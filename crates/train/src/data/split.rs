//! Fixed stratified splits.

use std::collections::BTreeMap;

use super::{Split, SplitRule};
use crate::random;

/// Splits `indices` so that the second part holds `count` of them, each class in proportion. Both
/// parts come back in ascending order; the same arguments give the same split for ever.
pub(super) fn stratified(
    indices: &[usize],
    labels: &[u32],
    count: usize,
    seed: u64,
) -> (Vec<usize>, Vec<usize>) {
    let mut by_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for &index in indices {
        by_class.entry(labels[index]).or_default().push(index);
    }
    let (mut rest, mut taken) = (Vec::new(), Vec::new());
    let (mut seen, mut due) = (0usize, 0usize);
    for (class, mut members) in by_class {
        random::shuffle(&mut random::generator(seed, "split", u64::from(class), 0), &mut members);
        // Rounding the running total keeps the sum exact.
        seen += members.len();
        let total = (seen * count + indices.len() / 2) / indices.len().max(1);
        let share = (total - due).min(members.len());
        due += share;
        taken.extend_from_slice(&members[..share]);
        rest.extend_from_slice(&members[share..]);
    }
    rest.sort_unstable();
    taken.sort_unstable();
    (rest, taken)
}

/// A split for every image: images of one group (a patient) stay together, images of none go alone;
/// each class comes as close to the shares as whole groups allow.
pub(super) fn grouped(labels: &[u32], groups: &[Option<usize>], rule: &SplitRule) -> Vec<Split> {
    let mut members: BTreeMap<(u8, usize), Vec<usize>> = BTreeMap::new();
    for index in 0..labels.len() {
        let key = groups.get(index).copied().flatten().map_or((1, index), |group| (0, group));
        members.entry(key).or_default().push(index);
    }
    let mut by_class: BTreeMap<u32, Vec<Vec<usize>>> = BTreeMap::new();
    for group in members.into_values() {
        by_class.entry(commonest(&group, labels)).or_default().push(group);
    }
    let mut splits = vec![Split::Train; labels.len()];
    for (class, mut groups) in by_class {
        random::shuffle(&mut random::generator(rule.seed, "grouped split", u64::from(class), 0), &mut groups);
        let total: usize = groups.iter().map(Vec::len).sum();
        let due = |share: f32| (total as f64 * f64::from(share)).round() as usize;
        let mut wanted = [(Split::Test, due(rule.test)), (Split::Validation, due(rule.validation))];
        for group in groups {
            // A group goes where it overshoots by less than it would leave open.
            let open = wanted.iter_mut().find(|(_, left)| *left > 0 && group.len() < 2 * *left);
            if let Some((split, left)) = open {
                *left = left.saturating_sub(group.len());
                group.iter().for_each(|&index| splits[index] = *split);
            }
        }
    }
    splits
}

fn commonest(group: &[usize], labels: &[u32]) -> u32 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    group.iter().for_each(|&index| *counts.entry(labels[index]).or_default() += 1);
    counts.into_iter().max_by_key(|&(label, count)| (count, std::cmp::Reverse(label))).map_or(0, |(l, _)| l)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_classes_in_proportion() {
        let labels: Vec<u32> = (0..1000).map(|i| u32::from(i % 4 == 0)).collect();
        let indices: Vec<usize> = (0..1000).collect();
        let (rest, taken) = stratified(&indices, &labels, 200, 7);
        assert_eq!((rest.len(), taken.len()), (800, 200));
        assert_eq!(taken.iter().filter(|&&i| labels[i] == 1).count(), 50);
        let mut all = [rest, taken].concat();
        all.sort_unstable();
        assert_eq!(all, indices);
    }

    #[test]
    fn odd_sizes_still_add_up() {
        let labels = [0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 2];
        let indices: Vec<usize> = (0..labels.len()).collect();
        for count in 0..=labels.len() {
            assert_eq!(stratified(&indices, &labels, count, 1).1.len(), count);
        }
    }

    #[test]
    fn without_groups_the_shares_are_exact_in_every_class() {
        let labels: Vec<u32> = (0..400).map(|i| u32::from(i % 4 == 0)).collect();
        let splits = grouped(&labels, &[], &SplitRule::default());
        for (class, counts) in [(0, [210, 30, 60]), (1, [70, 10, 20])] {
            let of = |split| (0..400).filter(|&i| labels[i] == class && splits[i] == split).count();
            assert_eq!([Split::Train, Split::Validation, Split::Test].map(of), counts);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_group_is_torn_and_shares_are_kept(
            images in proptest::collection::vec((0u32..3, proptest::option::of(0usize..40)), 1..300),
            seed in 0u64..100,
        ) {
            let labels: Vec<u32> = images.iter().map(|i| i.0).collect();
            let groups: Vec<Option<usize>> = images.iter().map(|i| i.1).collect();
            let rule = SplitRule { seed, ..SplitRule::default() };
            let splits = grouped(&labels, &groups, &rule);
            proptest::prop_assert_eq!(&splits, &grouped(&labels, &groups, &rule));
            for i in 0..images.len() {
                for j in 0..i {
                    if groups[i].is_some() && groups[i] == groups[j] {
                        proptest::prop_assert_eq!(splits[i], splits[j]);
                    }
                }
            }
            let largest = (0..40).map(|g| groups.iter().filter(|&&x| x == Some(g)).count()).max().unwrap_or(1);
            let test = splits.iter().filter(|&&s| s == Split::Test).count() as f64;
            // One group of slack in each of three classes.
            let slack = 3.0 * (largest.max(1) as f64 + 0.5);
            proptest::prop_assert!((test - 0.2 * images.len() as f64).abs() <= slack);
        }
    }
}
