//! The two halves of a plan as bare records, without the container: an error, or a plan that can be
//! lowered and scheduled (server), or that packs and unpacks an image (data owner).
#![no_main]

use libfuzzer_sys::fuzz_target;
use polyveil_net::Tensor;
use polyveil_plan::{ClientPlan, Layout, Schedule, ServerPlan, StepKind, Value, Work};

fuzz_target!(|bytes: &[u8]| {
    let Some((&half, bytes)) = bytes.split_first() else { return };
    if half % 2 == 0 {
        if let Ok(plan) = postcard::from_bytes::<ServerPlan>(bytes) {
            server(&plan);
        }
    } else if let Ok(plan) = postcard::from_bytes::<ClientPlan>(bytes) {
        client(&plan);
    }
});

fn server(plan: &ServerPlan) {
    if !is_quick(&plan.values) || plan.validate().is_err() {
        return;
    }
    let positions = |step: usize| {
        let [_, rows, columns] = plan.values[step + 1].layout.shape;
        rows * columns
    };
    let taps = plan.steps.iter().enumerate().map(|(k, step)| match &step.kind {
        StepKind::Linear(linear) => linear.terms.iter().map(|t| t.op.weight.len() * positions(k)).sum(),
        StepKind::Square { .. } => 0,
    });
    if taps.sum::<usize>() > 1 << 14 || plan.values.iter().map(|v| slots(&v.layout)).sum::<usize>() > 1 << 12
    {
        return;
    }
    let Ok(lowered) = plan.lowered() else { return };
    let _ = Work::count(plan, &lowered.iter().map(Option::as_ref).collect::<Vec<_>>());
    for (step, diagonals) in plan.steps.iter().zip(&lowered) {
        if let (StepKind::Linear(linear), Some(diagonals)) = (&step.kind, diagonals) {
            let schedule = Schedule::new(linear, diagonals, plan.values[0].layout.slots);
            let sums = schedule.outputs.iter().flat_map(|o| &o.giants);
            let products: usize = sums.map(|g| g.products.len()).sum();
            assert_eq!(products, diagonals.products());
        }
    }
}

fn client(plan: &ClientPlan) {
    if !is_quick([&plan.input, &plan.output]) || plan.validate().is_err() {
        return;
    }
    let zeros = vec![vec![0.0; plan.output.layout.slots]; plan.output.layout.ciphertexts];
    assert_eq!(plan.unpack(&zeros).len(), plan.output.layout.elements());
    if let Ok(packed) = plan.pack(&Tensor::full(plan.input_shape.clone(), 0.0)) {
        assert_eq!(packed.len(), plan.input.layout.ciphertexts);
    }
}

/// Validation takes time in proportion to the slots; large plans would only slow fuzzing down.
fn is_quick<'a>(values: impl IntoIterator<Item = &'a Value>) -> bool {
    values.into_iter().fold(0usize, |n, v| n.saturating_add(slots(&v.layout))) <= 1 << 16
}

fn slots(layout: &Layout) -> usize {
    layout.slots.saturating_mul(layout.ciphertexts)
}
