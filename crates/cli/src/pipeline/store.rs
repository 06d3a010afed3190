//! Files of ours: plans, keys, ciphertexts, results.

use std::fs::File;
use std::path::Path;

use polyveil_ckks::{EvaluationKeys, Parameters};
use polyveil_client::SecretKey;
use polyveil_format::{
    Count, EvaluationKeyReader, EvaluationKeyWriter, FormatError, Header, Kind, Reader, Writer,
    read_client_plan, read_parameters, read_server_plan, write_client_plan, write_record, write_server_plan,
};
use polyveil_plan::{ClientPlan, ServerPlan};
use zeroize::Zeroizing;

use crate::error::{CliError, Exit};
use crate::files::{self, Access};
use crate::pipeline::client::{self, Client};
use crate::session::Session;

/// Writes the server's half of a plan.
pub fn save_server_plan(plan: &ServerPlan, path: &Path) -> Result<(), CliError> {
    files::write_atomically(path, Access::Shared, |to| {
        write_server_plan(to, plan).map(|_| ()).map_err(|e| CliError::writing(path, e))
    })
}

/// Reads the server's half of a plan.
pub fn load_server_plan(path: &Path) -> Result<ServerPlan, CliError> {
    read_server_plan(files::open(path)?).map_err(|e| CliError::reading(path, e))
}

/// Writes the data owner's half of a plan.
pub fn save_client_plan(plan: &ClientPlan, path: &Path) -> Result<(), CliError> {
    files::write_atomically(path, Access::Shared, |to| {
        write_client_plan(to, plan).map(|_| ()).map_err(|e| CliError::writing(path, e))
    })
}

/// Reads the data owner's half of a plan.
pub fn load_client_plan(path: &Path) -> Result<ClientPlan, CliError> {
    read_client_plan(files::open(path)?).map_err(|e| CliError::reading(path, e))
}

/// Writes a secret key: readable by its owner alone, never over an existing file.
pub fn save_secret(secret: &SecretKey, path: &Path) -> Result<(), CliError> {
    files::write_atomically(path, Access::Secret, |to| {
        let write = || -> Result<(), FormatError> {
            let params = secret.params();
            let header = Header::new(Kind::SecretKey, params.fingerprint()).with_key(secret.key_id().0);
            let mut writer = Writer::new(to, header)?;
            write_record(&mut writer, "parameters", params.literal())?;
            writer.section("key", &secret.to_bytes())?;
            writer.finish().map(|_| ())
        };
        write().map_err(|e| CliError::writing(path, e))
    })
}

/// Reads a secret key that must belong to `params`.
pub fn load_secret(path: &Path, params: &Parameters) -> Result<SecretKey, CliError> {
    // Opened without a buffer, which would keep a copy of the key.
    let file = File::open(path).map_err(|e| CliError::io(path, &e, "read"))?;
    let bytes = (|| -> Result<Zeroizing<Vec<u8>>, FormatError> {
        let mut reader = Reader::open_kind(file, Kind::SecretKey)?;
        reader.header().expect_parameters(&params.fingerprint())?;
        read_parameters(&mut reader)?;
        let bytes = Zeroizing::new(reader.expect_section("key")?);
        reader.finish()?;
        Ok(bytes)
    })()
    .map_err(|e| CliError::reading(path, e))?;
    SecretKey::from_bytes(params, &bytes).map_err(|e| client::refused(e).at(path))
}

/// Refuses a file whose images are packed otherwise than the plan has it.
pub fn require_batch(path: &Path, count: Count, expected: usize) -> Result<(), CliError> {
    if count.batch as usize == expected {
        return Ok(());
    }
    let message = format!("the plan has batches of {expected} images, the file of {}", count.batch);
    Err(CliError::new(Exit::Mismatch, message).at(path))
}

/// Makes the evaluation keys of a plan straight into a file.
pub fn make_evaluation_keys(
    client: &Client,
    secret: &SecretKey,
    path: &Path,
    session: &Session,
) -> Result<(), CliError> {
    let fail = |e| CliError::writing(path, e);
    files::write_atomically(path, Access::Shared, |to| {
        let plan = client.plan();
        let mut writer =
            EvaluationKeyWriter::new(to, client.parameters(), plan.id, secret.key_id(), &plan.keys)
                .map_err(fail)?;
        client.make_keys(secret, session, |_, key| writer.key(key).map_err(fail))?;
        writer.finish().map(|_| ()).map_err(fail)
    })
}

/// Opens an evaluation key file of a plan.
pub fn open_evaluation_keys(
    path: &Path,
    params: &Parameters,
    plan: &[u8; 32],
) -> Result<EvaluationKeyReader<impl std::io::Read + use<>>, CliError> {
    EvaluationKeyReader::open(files::open(path)?, params, plan).map_err(|e| CliError::reading(path, e))
}

/// Reads the keys of an opened file one by one.
pub fn load_evaluation_keys(
    mut reader: EvaluationKeyReader<impl std::io::Read>,
    path: &Path,
    session: &Session,
) -> Result<EvaluationKeys, CliError> {
    let display = session.progress("load keys", reader.spec().count() as u64);
    let mut loaded = 0;
    while reader.read_next().map_err(|e| CliError::reading(path, e))? {
        loaded += 1;
        display.set(loaded, "");
        session.check_cancel()?;
    }
    reader.finish().map_err(|e| CliError::reading(path, e))
}

/// The header of any file of ours.
pub fn header(path: &Path) -> Result<Header, CliError> {
    Reader::open(files::open(path)?).map(|r| r.header().clone()).map_err(|e| CliError::reading(path, e))
}

/// Refuses files that do not belong together, in the words of the one that is opened later.
pub fn require_key(path: &Path, header: &Header, key: &[u8; 16]) -> Result<(), CliError> {
    header.expect_key(key).map_err(|e| {
        CliError::new(Exit::Mismatch, e).at(path).help("use evaluation keys and ciphertexts of one `keygen`")
    })
}

#[cfg(test)]
mod tests {
    use polyveil_ckks::{ParametersLiteral, RingKind, SharedChain};

    use super::*;

    fn params(q: &[u32]) -> Parameters {
        let literal = ParametersLiteral::generate(RingKind::ConjugateInvariant, 12, q, &[31], 1).unwrap();
        Parameters::new(literal).unwrap()
    }

    /// Secret keys of every released version stay readable. To add the file of a new version, run once
    /// with POLYVEIL_BLESS set; an existing file is never replaced.
    #[test]
    fn golden_secret_key_is_still_read() {
        let nested = params(&[30, 30]);
        // Since version 2 levels may share primes.
        let chain = SharedChain { levels: vec![vec![0], vec![0, 1]], digits: vec![0, 1] };
        let shared = ParametersLiteral { shared: Some(chain), ..nested.literal().clone() };
        for (version, params) in [(1, nested), (2, Parameters::new(shared).unwrap())] {
            let name = format!("tests/golden/secret-key-v{version}");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let secret = SecretKey::from_seed_for_tests(&params, [7; 32]).unwrap();
            if std::env::var_os("POLYVEIL_BLESS").is_some() && !path.exists() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                save_secret(&secret, &path).unwrap();
            }
            let read = load_secret(&path, &params).unwrap();
            assert_eq!(read.to_bytes(), secret.to_bytes());
        }
    }

    #[test]
    fn secret_keys_of_other_parameters_truncated_or_altered_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.key");
        let params = params(&[30, 30]);
        save_secret(&SecretKey::from_seed_for_tests(&params, [7; 32]).unwrap(), &path).unwrap();
        let other = self::params(&[30, 29]);
        assert_eq!(load_secret(&path, &other).err().unwrap().exit, Exit::Mismatch);
        let bytes = std::fs::read(&path).unwrap();
        let changed = directory.path().join("changed.key");
        for at in (0..bytes.len()).step_by(7) {
            std::fs::write(&changed, &bytes[..at]).unwrap();
            assert_eq!(load_secret(&changed, &params).err().unwrap().exit, Exit::File, "cut at {at}");
            let mut altered = bytes.clone();
            altered[at] ^= 2;
            std::fs::write(&changed, altered).unwrap();
            assert_eq!(load_secret(&changed, &params).err().unwrap().exit, Exit::File, "altered at {at}");
        }
    }
}
