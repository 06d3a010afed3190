//! Fixed stratified splits.

use crate::random;

/// Splits `indices` so that the second part holds `count` of them, each class in proportion. Both
/// parts come back in ascending order; the same arguments give the same split for ever.
pub(super) fn stratified(
    indices: &[usize],
    labels: &[u32],
    count: usize,
    seed: u64,
) -> (Vec<usize>, Vec<usize>) {
    let mut by_class: std::collections::BTreeMap<u32, Vec<usize>> = std::collections::BTreeMap::new();
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
}
