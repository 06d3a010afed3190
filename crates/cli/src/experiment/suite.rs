//! The suite file: what is compared on what.

use std::path::{Path, PathBuf};

use polyveil_train::{Ablation, ConvertConfig, DataOptions, Method, TrainConfig, merge, overlay};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{CliError, Exit};
use crate::pipeline::training;

/// An experiment: every network on every data set by every method with every seed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// Name of the experiment, in every row.
    pub name: String,
    /// Folder of all results, relative to the suite file [default: NAME.results].
    #[serde(default)]
    pub out: PathBuf,
    /// One run of everything for each.
    pub seeds: Vec<u64>,
    /// Networks.
    pub network: Vec<Network>,
    /// Data sets.
    pub data: Vec<Source>,
    /// Methods; the first is compared with the others.
    pub method: Vec<Entry>,
    /// Changes of the teachers' settings.
    #[serde(default)]
    pub teacher: Value,
    /// Changes of the conversion's settings, for all methods.
    #[serde(default)]
    pub student: Value,
}

/// A ReLU network.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name in results.
    pub name: String,
    /// As `train --arch`: a known architecture or an ONNX file [default: the name].
    #[serde(default)]
    pub arch: String,
    /// As `train --weights`: safetensors to start from.
    pub weights: Option<PathBuf>,
    /// Changes of how images become input, over those of the data set.
    #[serde(default)]
    pub images: Value,
    /// Changes of the teacher's settings. `epochs = 0` takes the network with its weights as the teacher.
    #[serde(default)]
    pub teacher: Value,
    /// Changes of the conversion's settings.
    #[serde(default)]
    pub student: Value,
}

/// A data set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name in results.
    pub name: String,
    /// As `--data`; a path is relative to the suite file.
    pub path: String,
    /// As `convert --unlabelled`: more images for students; paths are relative to the suite file.
    #[serde(default)]
    pub unlabelled: Vec<String>,
    /// How images become input: `image_size`, `resize`, `color`, `normalise`, ...
    #[serde(default)]
    pub images: Value,
    /// Changes of the teacher's settings.
    #[serde(default)]
    pub teacher: Value,
    /// Changes of the conversion's settings.
    #[serde(default)]
    pub student: Value,
    /// Networks that run on it [default: all].
    pub networks: Option<Vec<String>>,
}

/// A method with its settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name in results.
    pub name: String,
    /// Method whose preset it begins with.
    #[serde(default)]
    pub preset: Method,
    /// Parts left out.
    #[serde(default)]
    pub without: Vec<Ablation>,
    /// Largest learning rates to choose from, on validation images of the first seed.
    #[serde(default)]
    pub learning_rates: Vec<f32>,
    /// Changes of the conversion's settings.
    #[serde(default)]
    pub settings: Value,
    /// Data sets that it runs on [default: all].
    pub data: Option<Vec<String>>,
    /// Networks that it runs on [default: all].
    pub networks: Option<Vec<String>>,
}

impl Suite {
    /// Reads and checks a suite file. Every combination's settings are checked before anything runs.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let text =
            std::fs::read_to_string(path).map_err(|e| CliError::io(path, &e, "read").sorted(Exit::Usage))?;
        let mut suite: Self = toml::from_str(&text)
            .map_err(|e| CliError::new(Exit::Usage, format!("not a valid suite: {e}")).at(path))?;
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if suite.out.as_os_str().is_empty() {
            suite.out = PathBuf::from(format!("{}.results", suite.name));
        }
        suite.out = folder.join(&suite.out);
        for network in &mut suite.network {
            if network.arch.is_empty() {
                network.arch.clone_from(&network.name);
            }
            if Path::new(&network.arch).extension().is_some() {
                network.arch = folder.join(&network.arch).display().to_string();
            }
            network.weights = network.weights.take().map(|w| folder.join(w));
        }
        for path in suite.data.iter_mut().flat_map(|s| std::iter::once(&mut s.path).chain(&mut s.unlabelled))
        {
            if path != polyveil_train::data::mnist5k::NAME {
                *path = folder.join(&*path).display().to_string();
            }
        }
        suite.check().map_err(|e| e.at(path))?;
        Ok(suite)
    }

    fn check(&self) -> Result<(), CliError> {
        let refuse = |message: String| Err(CliError::new(Exit::Usage, message));
        for (what, names) in [
            ("network", self.network.iter().map(|n| &n.name).collect::<Vec<_>>()),
            ("data set", self.data.iter().map(|d| &d.name).collect()),
            ("method", self.method.iter().map(|m| &m.name).collect()),
        ] {
            if names.is_empty() {
                return refuse(format!("the suite has no {what}"));
            }
            for (index, name) in names.iter().enumerate() {
                let sound = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
                if name.is_empty() || name.starts_with('.') || !name.chars().all(sound) {
                    return refuse(format!(
                        "{what} \"{name}\": expected a name of letters, digits and . _ + - that does not begin with a dot"
                    ));
                }
                if names[..index].contains(name) {
                    return refuse(format!("two {what}s have the name {name}"));
                }
            }
        }
        if self.seeds.is_empty() {
            return refuse("the suite has no seeds".into());
        }
        if let Some(at) = (1..self.seeds.len()).find(|&i| self.seeds[..i].contains(&self.seeds[i])) {
            return refuse(format!("seed {} is there twice", self.seeds[at]));
        }
        for (key, names, known) in self.references() {
            if let Some(name) = names.iter().find(|n| !known.contains(n)) {
                return refuse(format!(
                    "{key}: no entry has the name {name}, there are {}",
                    known.join(", ")
                ));
            }
        }
        for network in &self.network {
            for source in self.sources(network) {
                self.teacher(network, source, self.seeds[0])?;
                self.options(network, source)?;
                for method in self.methods(network, source) {
                    for rate in Self::rates(method) {
                        self.student(network, source, method, self.seeds[0], rate)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Lists of names in entries, with the names that exist.
    fn references(&self) -> Vec<(String, &[String], Vec<String>)> {
        let networks: Vec<String> = self.network.iter().map(|n| n.name.clone()).collect();
        let data: Vec<String> = self.data.iter().map(|d| d.name.clone()).collect();
        let mut all = Vec::new();
        for source in &self.data {
            all.push((
                format!("data {}, networks", source.name),
                source.networks.as_deref(),
                networks.clone(),
            ));
        }
        for method in &self.method {
            all.push((
                format!("method {}, networks", method.name),
                method.networks.as_deref(),
                networks.clone(),
            ));
            all.push((format!("method {}, data", method.name), method.data.as_deref(), data.clone()));
        }
        all.into_iter().filter_map(|(key, names, known)| Some((key, names?, known))).collect()
    }

    /// Data sets that a network runs on.
    pub fn sources<'a>(&'a self, network: &'a Network) -> impl Iterator<Item = &'a Source> {
        self.data.iter().filter(|d| d.networks.as_ref().is_none_or(|n| n.contains(&network.name)))
    }

    /// Methods that run on a network and a data set.
    pub fn methods<'a>(
        &'a self,
        network: &'a Network,
        source: &'a Source,
    ) -> impl Iterator<Item = &'a Entry> {
        self.method.iter().filter(|m| {
            m.networks.as_ref().is_none_or(|n| n.contains(&network.name))
                && m.data.as_ref().is_none_or(|d| d.contains(&source.name))
        })
    }

    /// Learning rates that a method chooses from; none where it has the settings' one.
    pub fn rates(method: &Entry) -> Vec<Option<f32>> {
        if method.learning_rates.is_empty() {
            return vec![None];
        }
        method.learning_rates.iter().map(|&r| Some(r)).collect()
    }

    /// How images of a data set become input of a network.
    pub fn options(&self, network: &Network, source: &Source) -> Result<DataOptions, CliError> {
        let mut changes = source.images.clone();
        merge(&mut changes, &network.images);
        overlay(&DataOptions::default(), &changes).map_err(|e| training::misfit(None, &e).help(HELP_IMAGES))
    }

    /// Settings of a teacher. Epochs of 0 mean that the network is the teacher as it is.
    pub fn teacher(&self, network: &Network, source: &Source, seed: u64) -> Result<TrainConfig, CliError> {
        let mut changes = self.teacher.clone();
        for part in [&network.teacher, &source.teacher] {
            merge(&mut changes, part);
        }
        // Given weights are to be kept.
        let initialise = network.weights.is_none() && !network.arch.ends_with(".onnx");
        let base = TrainConfig { initialise, ..TrainConfig::default() };
        let mut config = overlay(&base, &changes).map_err(|e| training::misfit(None, &e))?;
        config.seed = seed;
        if config.epochs > 0 {
            config.check().map_err(training::refused)?;
        }
        Ok(config)
    }

    /// Settings of a run.
    pub fn student(
        &self,
        network: &Network,
        source: &Source,
        method: &Entry,
        seed: u64,
        rate: Option<f32>,
    ) -> Result<ConvertConfig, CliError> {
        let mut changes = json!({ "method": method.preset.name() });
        for part in [&self.student, &network.student, &source.student, &method.settings] {
            merge(&mut changes, part);
        }
        let refused = |e| {
            let mut failure = training::misfit(None, &e);
            failure.message = format!("method {}: {}", method.name, failure.message);
            failure
        };
        let mut config = ConvertConfig::from_changes(&changes).map_err(refused)?;
        method.without.iter().for_each(|part| part.apply(&mut config));
        config.seed = seed;
        config.optimiser.learning_rate = rate.unwrap_or(config.optimiser.learning_rate);
        config.check().map_err(training::refused)?;
        Ok(config)
    }
}

const HELP_IMAGES: &str = "image settings are image_size, resize, color, normalise, split, strict";
