//! The targets under libFuzzer: `FUZZ_TARGET=envelope fuzz [OPTION …] [FOLDER …]`, built by `infra/fuzz.py`.
//!
//! Half of the mutations are libFuzzer's own, and half those of [`fuzz::mutate`], which know JSON and base64.

#![no_main]

use std::sync::LazyLock;

use fuzz::Target;
use fuzz::mutate::{Mutator, Random};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

static TARGET: LazyLock<&'static Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    Target::named(&name).unwrap_or_else(|| list())
});

/// Lists the targets, each with the size of its largest input and the places of its seeds, for `infra/fuzz.py`.
fn list() -> ! {
    for target in fuzz::TARGETS {
        let places: Vec<String> = fuzz::seeds::places(target)
            .iter()
            .map(|place| place.display().to_string())
            .collect();
        println!("{}\t{}\t{}", target.name, target.longest, places.join("\t"));
    }
    std::process::exit(0)
}

fuzz_target!(
    init: TARGET.warm(),
    |input: &[u8]| TARGET.check(input)
);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed.is_multiple_of(2) {
        return fuzzer_mutate(data, size, max_size);
    }
    let random = Random(seed.into());
    let mut mutator = Mutator {
        random,
        words: TARGET.words,
        longest: max_size,
    };
    let mutated = mutator.mutate(data[..size].to_vec(), &[]);
    data[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
});
