//! The two halves of a plan.

use std::io::{Read, Write};

use polyveil_ckks::Parameters;
use polyveil_plan::{ClientPlan, PlanError, ServerPlan};
use serde::{Serialize, de::DeserializeOwned};

use crate::old::{ClientPlanV1, ServerPlanV1};
use crate::record::{header, read_versioned, write_record};
use crate::{FormatError, Kind, Reader, Writer};

const PLAN: &str = "plan";

/// Writes the server's half.
///
/// # Errors
/// When the plan's parameters are not valid, the plan is too large, or writing fails.
pub fn write_server_plan<W: Write>(to: W, plan: &ServerPlan) -> Result<W, FormatError> {
    write(to, Kind::ServerPlan, plan, plan.id, plan.parameters())
}

/// Reads and validates the server's half.
///
/// # Errors
/// When the file is another one, damaged, or its plan contradicts itself or its header.
pub fn read_server_plan(from: impl Read) -> Result<ServerPlan, FormatError> {
    let (plan, check): (ServerPlan, _) = read::<_, ServerPlanV1>(from, Kind::ServerPlan)?;
    check(plan.id, plan.parameters(), plan.validate())?;
    Ok(plan)
}

/// Writes the data owner's half.
///
/// # Errors
/// When the plan's parameters are not valid, the plan is too large, or writing fails.
pub fn write_client_plan<W: Write>(to: W, plan: &ClientPlan) -> Result<W, FormatError> {
    write(to, Kind::ClientPlan, plan, plan.id, plan.parameters())
}

/// Reads and validates the data owner's half.
///
/// # Errors
/// When the file is another one, damaged, or its plan contradicts itself or its header.
pub fn read_client_plan(from: impl Read) -> Result<ClientPlan, FormatError> {
    let (plan, check): (ClientPlan, _) = read::<_, ClientPlanV1>(from, Kind::ClientPlan)?;
    check(plan.id, plan.parameters(), plan.validate())?;
    Ok(plan)
}

fn write<W: Write>(
    to: W,
    kind: Kind,
    plan: &impl Serialize,
    id: [u8; 32],
    parameters: Result<Parameters, PlanError>,
) -> Result<W, FormatError> {
    let parameters = parameters.map_err(|e| FormatError::malformed(kind, PLAN, e))?;
    let mut writer = Writer::new(to, header(kind, &parameters).with_plan(id))?;
    write_record(&mut writer, PLAN, plan)?;
    writer.finish()
}

type Check = Box<
    dyn FnOnce([u8; 32], Result<Parameters, PlanError>, Result<(), PlanError>) -> Result<(), FormatError>,
>;

/// The plan, and the check of what only the plan itself can tell against the header.
fn read<P: DeserializeOwned + From<V1>, V1: DeserializeOwned>(
    from: impl Read,
    kind: Kind,
) -> Result<(P, Check), FormatError> {
    let mut reader = Reader::open_kind(from, kind)?;
    let header = reader.header().clone();
    let plan = read_versioned::<_, P, V1>(&mut reader, PLAN)?;
    reader.finish()?;
    let check =
        move |id: [u8; 32], parameters: Result<Parameters, PlanError>, sound: Result<(), PlanError>| {
            let unsound = |e: PlanError| FormatError::malformed(kind, PLAN, e);
            header.expect_plan(&id)?;
            header.expect_parameters(&parameters.map_err(unsound)?.fingerprint())?;
            sound.map_err(unsound)
        };
    Ok((plan, Box::new(check)))
}
