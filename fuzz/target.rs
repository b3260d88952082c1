//! Every target: libFuzzer's inputs into the check of this program's name, within a bound on memory.
#![no_main]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use libfuzzer_sys::fuzz_target;

/// Most memory that one input may take, in bytes: so much, and so much more for each of its own.
const BASE: usize = 64 << 20;
const EACH: usize = 1024;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every request goes to the system's allocator as it came; only its size is added up.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise about the layout.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise that it came from here.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fuzz_target!(|input: &[u8]| {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let known = guard_agent::fuzz::run(env!("CARGO_BIN_NAME"), input);
    assert!(known, "no target of this name");
    let grown = PEAK.load(Ordering::Relaxed).saturating_sub(before);
    assert!(
        grown <= BASE + EACH * input.len(),
        "{} bytes took {grown} bytes of memory",
        input.len()
    );
});
