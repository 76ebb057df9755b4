//! Files of a crate use one another in one direction: no file is reached again from what it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::contract::root;

type Graph = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// Parts of a crate that must not be in a circle.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Each file.
    File,
    /// Each file or folder directly in `src`: a module and its own parts may use one another.
    Module,
}

impl Unit {
    fn of(self, files: Graph) -> Graph {
        let length = match self {
            Self::File => return files,
            Self::Module => 1,
        };
        let mut modules = Graph::new();
        for (file, used) in files.into_iter().filter(|(file, _)| !file.is_empty()) {
            let module = file[..length].to_vec();
            let used = used.iter().filter(|used| !used.is_empty());
            let used = used.map(|used| used[..length].to_vec());
            let others = used.filter(|used| *used != module).collect::<Vec<_>>();
            modules.entry(module).or_default().extend(others);
        }
        modules
    }
}

const SOURCES: [(&str, Unit); 8] = [
    ("cli/src", Unit::Module),
    ("shared/api/src", Unit::File),
    ("shared/attestation/src", Unit::File),
    ("shared/aws/src", Unit::File),
    ("shared/integrations/src", Unit::Module),
    ("shared/pipeline/src", Unit::File),
    ("shared/pipeline/src", Unit::Module),
    ("shared/verify/src", Unit::File),
];

#[test]
fn no_file_is_in_a_circle() {
    let mut files = 0;
    let mut circles = Vec::new();
    for (source, unit) in SOURCES {
        let graph = graph(&root().join(source));
        files += graph.len();
        let graph = unit.of(graph);
        let found = graph.keys().filter_map(|file| circle(&graph, file));
        circles.extend(found.map(|circle| format!("{source}: {circle}")));
    }
    assert!(files > 200, "{files}");
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn uses_are_read_wherever_they_stand() {
    let code = "use crate::{a::{self, X}, b::c::Y, d};\nfn f() { crate::e::f(); g::h() }\nuse super::i::Z;";
    let mut found = Vec::new();
    paths(code, &mut found);
    let found: Vec<String> = found.iter().map(|path| path.join("::")).collect();
    for path in [
        "crate::a::self",
        "crate::a::X",
        "crate::b::c::Y",
        "crate::d",
        "crate::e::f",
        "g::h",
        "super::i::Z",
    ] {
        assert!(found.iter().any(|one| one == path), "{path}: {found:?}");
    }
}

/// A way from a file back to it, if there is one.
fn circle(graph: &Graph, from: &[String]) -> Option<String> {
    let mut ways = vec![vec![from.to_vec()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in &graph[way.last()?] {
            if next == from {
                let names: Vec<String> = way.iter().map(|file| file.join("/")).collect();
                return Some(format!("{} → {}", names.join(" → "), from.join("/")));
            }
            if seen.insert(next.clone()) {
                ways.push([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

/// Maps each file to the files that it uses. A folder's `mod.rs` is the folder; `lib.rs` is left out: it names all.
fn graph(source: &Path) -> Graph {
    let mut files = BTreeMap::new();
    read(source, &mut Vec::new(), &mut files);
    let uses = files.iter().map(|(file, code)| {
        let mut found = Vec::new();
        paths(code, &mut found);
        let used = found.iter().filter_map(|path| resolve(&files, file, path));
        let used = used.filter(|used| used != file).collect();
        (file.clone(), used)
    });
    uses.collect()
}

fn read(folder: &Path, module: &mut Vec<String>, files: &mut BTreeMap<Vec<String>, String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_folder = path.is_dir();
        if !is_folder && name == "lib" {
            continue;
        }
        if name != "mod" {
            module.push(name);
        }
        if is_folder {
            read(&path, module, files);
        } else {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let lines = code.lines().map(|line| line.split("//").next().unwrap());
            files.insert(module.clone(), lines.collect::<Vec<_>>().join("\n"));
        }
        if path.file_stem().is_some_and(|stem| stem != "mod") {
            module.pop();
        }
    }
}

/// All paths with `::` in them, those in braces each.
fn paths(code: &str, found: &mut Vec<Vec<String>>) {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut rest = code;
    while let Some(at) = rest.find("::") {
        let start = rest[..at].rfind(|letter| !is_part(letter));
        let first = &rest[start.map_or(0, |at| at + 1)..at];
        let (ends, left) = tree(&rest[at + 2..]);
        if !first.is_empty() {
            found.extend(ends.into_iter().map(|mut end| {
                end.insert(0, first.to_owned());
                end
            }));
        }
        rest = left;
    }
}

/// Parses what follows a `::`: a name, a path or a group of them. Returns its paths and the rest of the code.
fn tree(code: &str) -> (Vec<Vec<String>>, &str) {
    let code = code.trim_start();
    if let Some(mut rest) = code.strip_prefix('{') {
        let mut all = Vec::new();
        loop {
            let (some, left) = tree(rest);
            all.extend(some);
            rest = left.trim_start();
            match rest.strip_prefix(',') {
                Some(left) if !left.trim_start().starts_with('}') => rest = left,
                Some(left) => return (all, &left.trim_start()[1..]),
                None => return (all, rest.strip_prefix('}').unwrap_or(rest)),
            }
        }
    }
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    let end = code.find(|letter| !is_part(letter)).unwrap_or(code.len());
    let name = code[..end].to_owned();
    match code[end..].strip_prefix("::") {
        Some(left) if !left.starts_with('<') => {
            let (ends, left) = tree(left);
            let ends = ends.into_iter().map(|mut end| {
                end.insert(0, name.clone());
                end
            });
            (ends.collect(), left)
        }
        _ => (vec![vec![name]], &code[end..]),
    }
}

/// The file that a path from within `file` leads to: the one that is deepest.
fn resolve(
    files: &BTreeMap<Vec<String>, String>,
    file: &[String],
    path: &[String],
) -> Option<Vec<String>> {
    let mut module = match path[0].as_str() {
        "crate" => Vec::new(),
        "super" => file[..file.len().checked_sub(1)?].to_vec(),
        _ => file.to_vec(),
    };
    let skipped = usize::from(["crate", "super", "self"].contains(&path[0].as_str()));
    for part in &path[skipped..] {
        module.push(part.clone());
        if !files.contains_key(&module) {
            module.pop();
            break;
        }
    }
    files.contains_key(&module).then_some(module)
}
