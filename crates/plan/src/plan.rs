//! What planning yields: plain data, split into the server's half and the data owner's half.

use polyveil_ckks::{KeySpec, Parameters, ParametersLiteral};
use polyveil_net::Tensor;
use serde::{Deserialize, Serialize};

use crate::PlanError;
use crate::bsgs::Split;
use crate::diagonals::{Diagonals, MAX_NUMBERS, Source, lower_within};
use crate::layout::{Layout, SlotMap, ZERO};
use crate::linop::ConvOp;
use crate::scales::HEADROOM;

/// Index of a value of a plan; value 0 is the input, step `k` makes value `k + 1`.
pub type ValueId = usize;

/// Identifies the two halves of one plan and everything encrypted for it.
pub type PlanId = [u8; 32];

/// Both halves of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compiled {
    /// For the server: weights and steps, no pre-processing, no class names.
    pub server: ServerPlan,
    /// For the data owner: layouts, pre-processing and class names, no weights.
    pub client: ClientPlan,
}

/// What the server runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServerPlan {
    /// Ties this half to the client's.
    pub id: PlanId,
    /// Name of the network.
    pub network: String,
    /// Ring and moduli.
    pub parameters: ParametersLiteral,
    /// Every value: layout, level, scale, range.
    pub values: Vec<Value>,
    /// Steps in order; step `k` makes value `k + 1`.
    pub steps: Vec<Step>,
    /// The value that is sent back.
    pub output: ValueId,
    /// Exactly the evaluation keys that the steps use.
    pub keys: KeySpec,
    /// Predicted accuracy of the result.
    pub precision: Precision,
}

/// What the data owner needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientPlan {
    /// Ties this half to the server's.
    pub id: PlanId,
    /// Name of the network.
    pub network: String,
    /// Ring and moduli.
    pub parameters: ParametersLiteral,
    /// Shape of an image as the network reads it: `[C, H, W]` or `[F]`.
    pub input_shape: Vec<usize>,
    /// Where the image's elements go.
    pub input: Value,
    /// Where the scores are.
    pub output: Value,
    /// Exactly the evaluation keys to make.
    pub keys: KeySpec,
    /// Pre-processing of the images, JSON as the model file carries it.
    pub preprocessing: Option<String>,
    /// Names of the classes, in the order of the scores.
    pub class_names: Vec<String>,
    /// Predicted accuracy of the result.
    pub precision: Precision,
}

/// Predicted accuracy of decrypted scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Precision {
    /// Predicted largest error of a score (nine standard deviations, more for a batch).
    pub max_error: f64,
    /// Largest magnitude of a score on the calibration inputs.
    pub output_range: f64,
    /// Fractional bits to which decrypted scores are rounded.
    pub bits: i32,
}

/// One value: a tensor laid out over ciphertexts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// The layer that it ends.
    pub name: String,
    /// Where its elements are.
    pub layout: Layout,
    /// Level of its ciphertexts.
    pub level: usize,
    /// Scale of its ciphertexts.
    pub scale: f64,
    /// Largest magnitude that any slot has room for: four times that on the calibration inputs.
    pub range: f64,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The layer that it ends.
    pub name: String,
    /// What it computes.
    pub kind: StepKind,
}

/// The two kinds of operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepKind {
    /// Rotations, products with weights, sums.
    Linear(LinearStep),
    /// Elementwise square; one level.
    Square {
        /// Operand.
        input: ValueId,
    },
}

/// A sum of linear operators plus a bias.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearStep {
    /// The summands.
    pub terms: Vec<Term>,
    /// `[C]`, `[C, H, W]`, or empty for none.
    pub bias: Vec<f32>,
    /// How the rotations are split.
    pub split: Split,
    /// Whether products are needed, and at which scale.
    pub weighting: Weighting,
}

impl LinearStep {
    /// Whether it multiplies, and so takes a level.
    #[must_use]
    pub const fn is_weighted(&self) -> bool {
        matches!(self.weighting, Weighting::Weighted { .. })
    }
}

/// A linear operator of a value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Term {
    /// What it reads.
    pub value: ValueId,
    /// First output channel that it contributes to.
    pub offset: usize,
    /// The operator.
    pub op: ConvOp,
}

/// How a linear step multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Weighting {
    /// All weights are one constant, which divides the scale: no product and no level.
    Constant(f64),
    /// Products with weight plaintexts; one level. The weights' scale is chosen for each term so that
    /// the result has exactly the output's scale.
    Weighted {
        /// What comes to be in slots that hold no element.
        unused: Unused<f64>,
    },
}

/// What a weighted step leaves in slots that hold no element; `S` describes the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unused<S> {
    /// Anything: weights are free there, so that they repeat.
    Any,
    /// Zero, by a product with a 0/1 plaintext (of this scale).
    Masked(S),
    /// Zero, because the weights are: they repeat less, and no scale is shared with a mask.
    Zero,
}

impl Weighting {
    /// The scale of the mask, where there is one.
    #[must_use]
    pub const fn mask_scale(self) -> Option<f64> {
        match self {
            Self::Weighted { unused: Unused::Masked(scale) } => Some(scale),
            _ => None,
        }
    }

    /// Whether weights are zero in unused slots.
    #[must_use]
    pub const fn is_zeroed(self) -> bool {
        matches!(self, Self::Weighted { unused: Unused::Zero })
    }
}

/// Most slots that all values of a plan may have together: some four times those of VGG-16 on images
/// of 224×224.
const MAX_SLOTS: usize = 1 << 28;

impl ServerPlan {
    /// Checks a plan that came from outside: indices, layouts, operators, levels and scales.
    ///
    /// # Errors
    /// [`PlanError::Unsound`] naming the first contradiction.
    pub fn validate(&self) -> Result<(), PlanError> {
        let unsound = |place: &str, reason: String| PlanError::Unsound { place: place.to_owned(), reason };
        let slots = check_literal(&self.parameters)?;
        let keys = self.keys.check_within(self.parameters.max_level(), slots);
        keys.map_err(|error| unsound("keys", error.to_string()))?;
        if self.values.len() != self.steps.len() + 1 || self.output >= self.values.len() {
            return Err(unsound(
                "values",
                format!(
                    "{} steps need {} values, found {}",
                    self.steps.len(),
                    self.steps.len() + 1,
                    self.values.len()
                ),
            ));
        }
        let mut slots = 0usize;
        let batch = self.input().layout.batch;
        for value in &self.values {
            value.validate(&self.parameters)?;
            if value.layout.batch != batch {
                let found = value.layout.batch;
                return Err(unsound(&value.name, format!("images {found:?}, those of the input {batch:?}")));
            }
            // Both factors have been bounded. Validation takes time in proportion to this sum.
            slots += value.layout.slots * value.layout.ciphertexts;
            if slots > MAX_SLOTS {
                return Err(unsound(&value.name, format!("more than {MAX_SLOTS} slots in all values")));
            }
        }
        for (k, step) in self.steps.iter().enumerate() {
            let out = &self.values[k + 1];
            let earlier = |id: ValueId| {
                (id <= k).then(|| &self.values[id]).ok_or_else(|| {
                    unsound(&step.name, format!("step {k} reads value {id}, which is made later"))
                })
            };
            let cost = match &step.kind {
                StepKind::Square { input } => {
                    if earlier(*input)?.layout != out.layout {
                        return Err(unsound(&step.name, "a square changes the layout".into()));
                    }
                    earlier(*input)?.level.min(1)
                }
                StepKind::Linear(linear) => {
                    if linear.terms.is_empty() {
                        return Err(unsound(&step.name, "a linear step without operands".into()));
                    }
                    for term in &linear.terms {
                        let from = earlier(term.value)?;
                        if !term.op.is_sound()
                            || term.op.input != from.layout.shape
                            || term.op.output[1..] != out.layout.shape[1..]
                            || term.offset.saturating_add(term.op.output[0]) > out.layout.shape[0]
                        {
                            return Err(unsound(
                                &step.name,
                                format!(
                                    "operator {:?} to {:?} at channel {} between values {:?} and {:?}",
                                    term.op.input,
                                    term.op.output,
                                    term.offset,
                                    from.layout.shape,
                                    out.layout.shape
                                ),
                            ));
                        }
                    }
                    let Split { step: baby, block } = linear.split;
                    if baby > out.layout.slots || block > out.layout.slots {
                        return Err(unsound(
                            &step.name,
                            format!(
                                "baby steps up to {baby} in blocks of {block} of {} slots",
                                out.layout.slots
                            ),
                        ));
                    }
                    let elements = out.layout.elements();
                    if ![0, out.layout.shape[0], elements].contains(&linear.bias.len())
                        || linear.bias.iter().any(|b| !b.is_finite())
                    {
                        return Err(unsound(
                            &step.name,
                            format!("{} bias values for {:?}", linear.bias.len(), out.layout.shape),
                        ));
                    }
                    match linear.weighting {
                        Weighting::Constant(c) if c.is_finite() && c > 0.0 => 0,
                        weighting @ Weighting::Weighted { .. }
                            if weighting.mask_scale().is_none_or(|m| m.is_finite() && m > 1.0) =>
                        {
                            1
                        }
                        other => return Err(unsound(&step.name, format!("weighting {other:?}"))),
                    }
                }
            };
            let deepest = match &step.kind {
                StepKind::Square { input } => self.values[*input].level,
                StepKind::Linear(l) => l.terms.iter().map(|t| self.values[t.value].level).min().unwrap_or(0),
            };
            if out.level + cost > deepest {
                return Err(unsound(
                    &step.name,
                    format!("needs level {} of its inputs, found {deepest}", out.level + cost),
                ));
            }
        }
        Ok(())
    }

    /// The checked parameters.
    ///
    /// # Errors
    /// [`PlanError::Parameters`] where they are below 128-bit security or contradict themselves.
    pub fn parameters(&self) -> Result<Parameters, PlanError> {
        checked(&self.parameters)
    }

    /// The input value.
    #[must_use]
    pub fn input(&self) -> &Value {
        &self.values[0]
    }

    /// How many images are run together.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.input().layout.images()
    }

    /// What the slots of every value hold, and the rotations and weights of every linear step, derived
    /// from the layouts in order.
    ///
    /// # Errors
    /// [`PlanError::TooLarge`] where they would take more memory than the planner itself allows.
    pub fn lowered(&self) -> Result<Vec<Option<Diagonals>>, PlanError> {
        let mut left = MAX_NUMBERS;
        let mut maps: Vec<SlotMap> = vec![self.values[0].layout.slot_map(ZERO)];
        let mut all = Vec::with_capacity(self.steps.len());
        for (k, step) in self.steps.iter().enumerate() {
            match &step.kind {
                StepKind::Square { input } => {
                    maps.push(maps[*input].clone());
                    all.push(None);
                }
                StepKind::Linear(linear) => {
                    let layout = &self.values[k + 1].layout;
                    let sources: Vec<Source<'_>> = linear
                        .terms
                        .iter()
                        .map(|t| Source {
                            op: &t.op,
                            offset: t.offset,
                            layout: &self.values[t.value].layout,
                            map: &maps[t.value],
                        })
                        .collect();
                    let zeroed = linear.weighting.is_zeroed();
                    let diagonals =
                        lower_within(&sources, layout, zeroed, left).ok_or_else(|| PlanError::TooLarge {
                            layer: step.name.clone(),
                            what: "size of all weight vectors",
                            found: MAX_NUMBERS.saturating_add(1),
                            limit: MAX_NUMBERS,
                        })?;
                    left = left.saturating_sub(diagonals.numbers());
                    let masked = linear.weighting.mask_scale().is_some();
                    let map =
                        if masked { layout.slot_map(ZERO) } else { diagonals.slot_map(layout, &sources) };
                    maps.push(map);
                    all.push(Some(diagonals));
                }
            }
        }
        Ok(all)
    }
}

impl ClientPlan {
    /// The checked parameters.
    ///
    /// # Errors
    /// [`PlanError::Parameters`] where they are below 128-bit security or contradict themselves.
    pub fn parameters(&self) -> Result<Parameters, PlanError> {
        checked(&self.parameters)
    }

    /// Checks a plan that came from outside.
    ///
    /// # Errors
    /// [`PlanError::Unsound`] naming the first contradiction.
    pub fn validate(&self) -> Result<(), PlanError> {
        check_literal(&self.parameters)?;
        self.input.validate(&self.parameters)?;
        self.output.validate(&self.parameters)?;
        if self.output.layout.batch != self.input.layout.batch {
            let (input, output) = (self.input.layout.batch, self.output.layout.batch);
            let reason = format!("images {output:?}, those of the input {input:?}");
            return Err(PlanError::Unsound { place: self.output.name.clone(), reason });
        }
        let elements = self.input_shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if elements != Some(self.input.layout.elements()) {
            return Err(PlanError::Unsound {
                place: "input".into(),
                reason: format!(
                    "shape {:?} against layout of {:?}",
                    self.input_shape, self.input.layout.shape
                ),
            });
        }
        if !self.class_names.is_empty() && self.class_names.len() != self.output.layout.elements() {
            return Err(PlanError::Unsound {
                place: "class names".into(),
                reason: format!(
                    "{} names for {} scores",
                    self.class_names.len(),
                    self.output.layout.elements()
                ),
            });
        }
        Ok(())
    }

    /// How many images are run together.
    #[must_use]
    pub fn batch(&self) -> usize {
        self.input.layout.images()
    }

    /// Slot vectors of one pre-processed image, one a ciphertext; it takes the place of all images of a batch.
    ///
    /// # Errors
    /// As [`ClientPlan::pack_batch`].
    pub fn pack(&self, image: &Tensor) -> Result<Vec<Vec<f64>>, PlanError> {
        self.pack_batch(&[image])
    }

    /// Slot vectors of pre-processed images, one a ciphertext. Where there are fewer than a batch, the last takes the places that are
    /// left.
    ///
    /// # Errors
    /// [`PlanError::Calibration`] with the image's index where its shape differs, a value is not finite, or a value exceeds what the
    /// plan can hold; [`PlanError::Batch`] for no image or more than a batch.
    pub fn pack_batch(&self, images: &[&Tensor]) -> Result<Vec<Vec<f64>>, PlanError> {
        if images.is_empty() || images.len() > self.batch() {
            return Err(PlanError::Batch { found: images.len(), limit: self.batch() });
        }
        let values = |(index, image): (usize, &&Tensor)| {
            let refuse = |reason| Err(PlanError::Calibration { index, reason });
            if image.shape() != self.input_shape {
                return refuse(format!("shape {:?} expected, found {:?}", self.input_shape, image.shape()));
            }
            if let Some(at) = image.data().iter().position(|v| !v.is_finite()) {
                return refuse(format!("value {at} is {}", image.data()[at]));
            }
            let largest = image.data().iter().fold(0.0f64, |m, &v| m.max(f64::from(v.abs())));
            if largest > self.input.range {
                return refuse(format!(
                    "largest value {largest} is beyond the plan's input range {} (is it pre-processed as the model expects?)",
                    self.input.range
                ));
            }
            Ok(image.data().iter().map(|&v| f64::from(v)).collect())
        };
        let values: Vec<Vec<f64>> = images.iter().enumerate().map(values).collect::<Result<_, _>>()?;
        Ok(self.input.layout.pack(&values))
    }

    /// The largest magnitude with which a slot of a result is believed: twice that on the calibration inputs. Values that wrapped around
    /// their modulus in an early layer are wrong by much more in the end; in one of the last layers by about the room that is left
    /// there, four times the calibration inputs', so that a wrong result may happen to stay below.
    #[must_use]
    pub fn credible(&self) -> f64 {
        // A network that yields next to nothing has its noise.
        (2.0 * self.output.range / HEADROOM).max(self.precision.max_error)
    }

    /// Scores of the first image from decrypted slot vectors.
    #[must_use]
    pub fn unpack(&self, slots: &[Vec<f64>]) -> Vec<f64> {
        self.unpack_batch(slots).into_iter().next().unwrap_or_default()
    }

    /// Scores of all images of a batch from decrypted slot vectors.
    #[must_use]
    pub fn unpack_batch(&self, slots: &[Vec<f64>]) -> Vec<Vec<f64>> {
        self.output.layout.unpack(slots)
    }
}

impl Value {
    fn validate(&self, parameters: &ParametersLiteral) -> Result<(), PlanError> {
        let unsound = |reason| Err(PlanError::Unsound { place: self.name.clone(), reason });
        if self.level > parameters.max_level() {
            return unsound(format!("level {} of {}", self.level, parameters.max_level()));
        }
        if !(self.scale.is_finite() && self.scale >= 1.0 && self.range.is_finite() && self.range >= 0.0) {
            return unsound(format!("scale {} and range {}", self.scale, self.range));
        }
        let slots = 1usize.checked_shl(parameters.log_n).unwrap_or(0);
        if self.layout.slots != slots || !self.layout.is_sound() {
            return unsound("the layout overlaps or leaves the slots".to_owned());
        }
        Ok(())
    }
}

/// Checks the shape of parameters; the number of slots.
fn check_literal(literal: &ParametersLiteral) -> Result<usize, PlanError> {
    let refuse = |source| PlanError::Parameters { log_n: literal.log_n, source };
    literal.check().map_err(refuse)?;
    Ok(literal.ring.slots(1 << literal.log_n))
}

fn checked(literal: &ParametersLiteral) -> Result<Parameters, PlanError> {
    Parameters::new(literal.clone()).map_err(|source| PlanError::Parameters { log_n: literal.log_n, source })
}
