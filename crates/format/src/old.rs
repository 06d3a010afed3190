//! Records as earlier format versions had them, and what they are today.

use polyveil_ckks::{KeySpec, ParametersLiteral};
use polyveil_plan::{
    ClientPlan, Digit, Layout, PlanId, Precision, ServerPlan, Step, Value as TodaysValue, ValueId,
};
use serde::{Deserialize, Serialize};

use crate::Count;

/// A layout of version 1: of one image.
#[derive(Serialize, Deserialize)]
struct LayoutV1 {
    shape: [usize; 3],
    slots: usize,
    ciphertexts: usize,
    axes: [Vec<Digit>; 3],
    repeats: Vec<Digit>,
}

#[derive(Serialize, Deserialize)]
struct ValueV1 {
    name: String,
    layout: LayoutV1,
    level: usize,
    scale: f64,
    range: f64,
}

impl From<ValueV1> for TodaysValue {
    fn from(ValueV1 { name, layout, level, scale, range }: ValueV1) -> Self {
        let LayoutV1 { shape, slots, ciphertexts, axes, repeats } = layout;
        let layout = Layout { shape, slots, ciphertexts, axes, repeats, batch: Digit::slot(1, slots) };
        Self { name, layout, level, scale, range }
    }
}

/// The server's half of a plan, version 1.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServerPlanV1 {
    id: PlanId,
    network: String,
    parameters: ParametersLiteral,
    values: Vec<ValueV1>,
    steps: Vec<Step>,
    output: ValueId,
    keys: KeySpec,
    precision: Precision,
}

impl From<ServerPlanV1> for ServerPlan {
    fn from(old: ServerPlanV1) -> Self {
        let ServerPlanV1 { id, network, parameters, values, steps, output, keys, precision } = old;
        let values = values.into_iter().map(Into::into).collect();
        Self { id, network, parameters, values, steps, output, keys, precision }
    }
}

/// The data owner's half of a plan, version 1.
#[derive(Serialize, Deserialize)]
pub(crate) struct ClientPlanV1 {
    id: PlanId,
    network: String,
    parameters: ParametersLiteral,
    input_shape: Vec<usize>,
    input: ValueV1,
    output: ValueV1,
    keys: KeySpec,
    preprocessing: Option<String>,
    class_names: Vec<String>,
    precision: Precision,
}

impl From<ClientPlanV1> for ClientPlan {
    fn from(old: ClientPlanV1) -> Self {
        Self {
            id: old.id,
            network: old.network,
            parameters: old.parameters,
            input_shape: old.input_shape,
            input: old.input.into(),
            output: old.output.into(),
            keys: old.keys,
            preprocessing: old.preprocessing,
            class_names: old.class_names,
            precision: old.precision,
        }
    }
}

/// The index of encrypted images or scores, version 1: one image a group.
#[derive(Serialize, Deserialize)]
pub(crate) struct CountV1 {
    images: u32,
    per_image: u32,
}

impl From<CountV1> for Count {
    fn from(CountV1 { images, per_image }: CountV1) -> Self {
        Self { images, batch: 1, per_batch: per_image }
    }
}
