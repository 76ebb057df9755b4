//! Inputs to begin with: of the corpus, of other places of this repository, and of `SAMPLES_DIR` where that is set.

use std::path::{Path, PathBuf};

use crate::Target;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The folder of a target's corpus.
pub fn corpus(target: &Target) -> PathBuf {
    root().join("tests/fuzz/corpus").join(target.name)
}

/// The files and folders of a target's seeds.
pub fn places(target: &Target) -> Vec<PathBuf> {
    let own = target.seeds.iter().map(|place| root().join(place));
    // A target of which nothing was found, and whose seeds are elsewhere, has none.
    let corpus = Some(corpus(target)).filter(|folder| folder.is_dir());
    let mut places: Vec<PathBuf> = corpus.into_iter().chain(own).collect();
    if let Some(samples) = std::env::var_os("SAMPLES_DIR") {
        places.extend(
            target
                .samples
                .iter()
                .map(|folder| Path::new(&samples).join(folder)),
        );
    }
    places
}

/// Each seed with its file.
pub fn of(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for place in places(target) {
        add(&place, &mut files);
    }
    let read = |path: PathBuf| {
        let bytes =
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

fn add(place: &Path, files: &mut Vec<PathBuf>) {
    if place.is_file() {
        return files.push(place.to_owned());
    }
    let entries =
        std::fs::read_dir(place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .collect();
    found.sort();
    files.extend(found.into_iter().filter(|path| path.is_file()));
}
