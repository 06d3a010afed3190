//! Where the words of a buffer lie: on the heap, or in a mapping of their own that asks for huge pages.

#[cfg(target_os = "linux")]
use memmap2::{Advice, MmapMut};

/// Bytes of a huge page, and of the least memory that asks for some.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;
#[cfg(target_os = "linux")]
const HUGE: usize = 8 << 20;

/// Words of memory, all initialised.
#[derive(Debug)]
pub(crate) enum Words {
    Heap(Vec<u64>),
    #[cfg(target_os = "linux")]
    Mapped(MmapMut),
}

impl Default for Words {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Words {
    /// So many zeros at least.
    pub(crate) fn new(words: usize) -> Self {
        #[cfg(target_os = "linux")]
        if let Some(mapped) = huge(words) {
            return Self::Mapped(mapped);
        }
        Self::Heap(vec![0; words])
    }

    /// Words that there is room for.
    pub(crate) fn capacity(&self) -> usize {
        match self {
            Self::Heap(words) => words.capacity(),
            #[cfg(target_os = "linux")]
            Self::Mapped(map) => map.len() / size_of::<u64>(),
        }
    }

    /// Makes room for `len` words and says at which word they begin so that they start on a multiple of `line` words.
    pub(crate) fn fit(&mut self, len: usize, line: usize) -> usize {
        match self {
            Self::Heap(words) => {
                words.resize(len + line - 1, 0);
                words.as_ptr().align_offset(line * size_of::<u64>()).min(line - 1)
            }
            #[cfg(target_os = "linux")]
            // On a page.
            Self::Mapped(_) => 0,
        }
    }

    pub(crate) fn values(&self) -> &[u64] {
        match self {
            Self::Heap(words) => words,
            #[cfg(target_os = "linux")]
            Self::Mapped(map) => bytemuck::cast_slice(map),
        }
    }

    pub(crate) fn values_mut(&mut self) -> &mut [u64] {
        match self {
            Self::Heap(words) => words,
            #[cfg(target_os = "linux")]
            Self::Mapped(map) => bytemuck::cast_slice_mut(map),
        }
    }
}

/// A mapping of whole huge pages; none where it would be small or there is none to have.
#[cfg(target_os = "linux")]
fn huge(words: usize) -> Option<MmapMut> {
    let bytes = words.checked_mul(size_of::<u64>()).filter(|&bytes| bytes >= HUGE)?;
    // Linux starts mappings of whole huge pages on one. The last is asked for in small ones, of which those never touched take
    // no memory. Without huge pages it works as well, only slower.
    let map = MmapMut::map_anon(bytes.checked_next_multiple_of(HUGE_PAGE)?).ok()?;
    let _ = map.advise_range(Advice::HugePage, 0, bytes - bytes % HUGE_PAGE);
    Some(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_buffers_start_on_a_page() {
        let mut words = Words::new(2 << 20);
        let start = words.fit(2 << 20, 8);
        assert!(words.capacity() >= 2 << 20);
        let values = &mut words.values_mut()[start..start + (2 << 20)];
        assert!(values.iter().all(|&v| v == 0));
        values.fill(3);
        if cfg!(target_os = "linux") {
            assert_eq!(values.as_ptr().align_offset(4096), 0);
        }
        assert_eq!(words.values()[start], 3);
    }
}
