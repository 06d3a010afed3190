//! Codecs of the two halves of a plan, with their golden files.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::path::PathBuf;

use polyveil_ckks::SharedChain;
use polyveil_format::{
    FormatError, Header, Kind, Writer, read_client_plan, read_server_plan, write_client_plan, write_record,
    write_server_plan,
};
use polyveil_net::builders::GraphBuilder;
use polyveil_plan::{CompileOptions, Compiled, Digit, StepKind, Unused, Weighting, compile};

fn compiled() -> Compiled {
    compiled_for(1)
}

fn compiled_for(batch: usize) -> Compiled {
    let mut b = GraphBuilder::new("golden", &[4], 7);
    let mut x = b.input();
    x = b.linear("fc1", x, 3);
    x = b.quadratic("act", x, [0.5, 0.25, 0.0]);
    x = b.linear("fc2", x, 2);
    compile(&b.finish(x).unwrap(), &CompileOptions { batch, ..CompileOptions::default() }).unwrap()
}

#[test]
fn both_halves_come_back() {
    for batch in [1, 3] {
        comes_back(&compiled_for(batch));
    }
}

fn comes_back(compiled: &Compiled) {
    let server = write_server_plan(Vec::new(), &compiled.server).unwrap();
    let client = write_client_plan(Vec::new(), &compiled.client).unwrap();
    assert_eq!(read_server_plan(server.as_slice()).unwrap(), compiled.server);
    assert_eq!(read_client_plan(client.as_slice()).unwrap(), compiled.client);
    assert!(matches!(read_client_plan(server.as_slice()), Err(FormatError::WrongKind { .. })));
}

#[test]
fn truncation_and_flipped_bits_are_refused() {
    let bytes = write_client_plan(Vec::new(), &compiled().client).unwrap();
    for at in 0..bytes.len() {
        assert!(read_client_plan(&bytes[..at]).is_err(), "cut at {at}");
        let mut altered = bytes.clone();
        altered[at] ^= 1 << (at % 8);
        assert!(read_client_plan(altered.as_slice()).is_err(), "flipped at {at}");
    }
}

/// A server plan with intact checksums, changed before it is written.
fn hostile(change: impl FnOnce(&mut polyveil_plan::ServerPlan)) -> String {
    let mut plan = compiled().server;
    let header = Header::new(Kind::ServerPlan, plan.parameters().unwrap().fingerprint()).with_plan(plan.id);
    change(&mut plan);
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    write_record(&mut writer, "plan", &plan).unwrap();
    read_server_plan(writer.finish().unwrap().as_slice()).unwrap_err().to_string()
}

#[test]
fn plans_that_contradict_themselves_or_their_header_are_refused() {
    assert!(hostile(|p| p.id = [3; 32]).contains("made for plan"));
    assert!(hostile(|p| p.output = 99).contains("not sound"));
    assert!(hostile(|p| p.values[1].level = 60).contains("level 60"));
    assert!(hostile(|p| p.values[1].scale = f64::NAN).contains("NaN"));
    assert!(hostile(|p| p.parameters.q.push(p.parameters.q[0])).contains("plan"));
    assert!(hostile(|p| p.parameters.log_n = 60).contains("60"));
    assert!(hostile(|p| p.parameters.log_n = 10).contains("10"));
    for size in [0, 3, usize::MAX] {
        let message = hostile(|p| p.values.iter_mut().for_each(|v| v.layout.batch.size = size));
        assert!(message.contains("the layout overlaps or leaves the slots"), "{message}");
    }
    let message = hostile(|p| {
        let slots = p.values[1].layout.slots;
        p.values[1].layout.batch = Digit::slot(2, slots / 2);
        p.values[1].layout.repeats.clear();
    });
    assert!(message.contains("those of the input"), "{message}");
}

/// The plan with its chain written level by level, as one has it whose levels share primes.
fn shared(mut compiled: Compiled) -> Compiled {
    let literal = &mut compiled.server.parameters;
    let levels = (0..=literal.max_level() as u8).map(|level| (0..=level).collect()).collect();
    let digits = (0..literal.q.len() as u8).step_by(literal.digit_size).collect();
    literal.shared = Some(SharedChain { levels, digits });
    compiled.client.parameters = literal.clone();
    compiled
}

/// The plan with its first step as one that leaves zeros in unused slots.
fn zeroed(mut compiled: Compiled) -> Compiled {
    let StepKind::Linear(linear) = &mut compiled.server.steps[0].kind else {
        unreachable!("the first layer is linear")
    };
    linear.weighting = Weighting::Weighted { unused: Unused::Zero };
    compiled
}

/// See `objects.rs` for how golden files are made. Only what a later version must still understand is
/// compared: the planner may well choose otherwise by then.
#[test]
fn golden_plans_are_still_read() {
    let golden = |name: &str, write: &dyn Fn() -> Vec<u8>| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
        if std::env::var_os("POLYVEIL_BLESS").is_some() && !path.exists() {
            std::fs::write(&path, write()).unwrap();
        }
        std::fs::read(&path).unwrap()
    };
    for (version, batch) in [(1, 1), (2, 3), (3, 3), (4, 3)] {
        let compiled = || match version {
            1 | 2 => compiled_for(batch),
            3 => shared(compiled_for(batch)),
            _ => zeroed(shared(compiled_for(batch))),
        };
        let server = golden(&format!("server-plan-v{version}"), &|| {
            write_server_plan(Vec::new(), &compiled().server).unwrap()
        });
        // Nothing of version 4 is in the client's half.
        let client = golden(&format!("client-plan-v{}", version.min(3)), &|| {
            write_client_plan(Vec::new(), &compiled().client).unwrap()
        });
        let (server, client) =
            (read_server_plan(server.as_slice()).unwrap(), read_client_plan(client.as_slice()).unwrap());
        // Of one `compile`, where they are of one version.
        if version <= 3 {
            assert_eq!((server.id, &server.parameters), (client.id, &client.parameters));
        }
        assert_eq!((server.batch(), client.batch()), (batch, batch));
        assert_eq!((server.network.as_str(), client.network.as_str()), ("golden", "golden"));
        assert_eq!(client.input_shape, [4]);
        assert_eq!(server.parameters.shared.is_some(), version >= 3);
        let StepKind::Linear(first) = &server.steps[0].kind else {
            unreachable!("the first layer is linear")
        };
        assert_eq!(first.weighting.is_zeroed(), version >= 4);
        // Weights and layouts of an old plan still go together.
        assert!(server.lowered().unwrap()[0].is_some());
    }
}
