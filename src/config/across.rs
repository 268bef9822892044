//! What shows only when the sections are seen together.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use super::Config;
use super::reader::Faults;
use crate::model::RepoName;

pub(super) fn check(config: &Config, faults: &Faults) {
    twice(config, faults);
    if !config.repositories.is_empty() && !config.repositories.iter().any(|r| r.required) {
        faults.add_whole(
            "no repository is required: `wal push` would say \"done\" with nothing stored; leave out one \
             `required = false`",
        );
    }
    for job in &config.jobs {
        if let Some(name) = job.work.repository()
            && !config.repositories.iter().any(|repository| repository.name == *name)
        {
            faults
                .add_at(&format!("job.{}.repository", job.name), format!("there is no repository `{name}`"));
        }
    }
    let mut places = vec![(config.state_directory.as_path(), "the state directory".to_owned())];
    for cluster in &config.clusters {
        if let Some(directory) = &cluster.data_directory {
            places.push((directory, format!("the data directory of cluster `{}`", cluster.name)));
        }
    }
    for (place, name) in places {
        if let Some((repository, what)) = roots_apart(config, place, &name) {
            faults.add_at(&format!("repository.{repository}.url"), what);
        }
    }
}

fn twice(config: &Config, faults: &Faults) {
    let mut names: HashMap<&RepoName, usize> = HashMap::new();
    let mut urls: HashMap<(&str, Option<&str>), &RepoName> = HashMap::new();
    for repository in &config.repositories {
        let times = names.entry(&repository.name).or_default();
        *times += 1;
        if *times == 2 {
            faults.add_at(&format!("repository.{}", repository.name), "the name is there twice");
        }
        let store = &repository.store;
        let place = (store.url.trim_end_matches('/'), store.endpoint.as_deref());
        match urls.insert(place, &repository.name) {
            Some(other) if *other != repository.name => faults.add_at(
                &format!("repository.{}.url", repository.name),
                format!("is the same place as repository `{other}`"),
            ),
            _ => {}
        }
    }
}

/// The first repository in a directory that lies in `place`, or that `place` lies in, and what is wrong with that.
pub(super) fn roots_apart(config: &Config, place: &Path, name: &str) -> Option<(RepoName, String)> {
    let place_real = real(place);
    config.repositories.iter().find_map(|repository| {
        let root = real(&repository.store.directory()?);
        let what = if root.starts_with(&place_real) {
            format!("{} lies in {name} ({})", root.display(), place.display())
        } else if place_real.starts_with(&root) {
            format!("{name} ({}) lies in {}", place.display(), root.display())
        } else {
            return None;
        };
        Some((repository.name.clone(), what))
    })
}

/// The path with the links of its existing part resolved: what is not there yet cannot be a link.
fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        if let Ok(found) = ancestor.canonicalize() {
            return missing.iter().rev().fold(found, |whole, part| whole.join(part));
        }
        if let Some(Component::Normal(name)) = ancestor.components().next_back() {
            missing.push(name.to_owned());
        }
    }
    path.to_owned()
}
