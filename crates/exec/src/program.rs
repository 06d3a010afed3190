//! The one interpreter: carries out a plan's steps on any [`Backend`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use polyveil_ckks::{CkksError, par};
use polyveil_plan::{
    Diagonals, Giant, LinearStep, OutputSchedule, Product, Schedule, ServerPlan, StepKind, Value, Weighting,
    double_hoisting_pays,
};

use crate::ExecError;
use crate::backend::{Backend, GiantSum, WeightedRotations, Weights};
use crate::linear;

/// A plan with its rotations and weight vectors at hand.
pub struct Program {
    plan: ServerPlan,
    lowered: Vec<Option<Diagonals>>,
    /// Step after which a value is not read any more.
    last_use: Vec<usize>,
}

/// Seconds that one layer took.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTime {
    /// The layer.
    pub name: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// What a run yields.
#[derive(Clone, Debug)]
pub struct Output<C> {
    /// The output value's ciphertexts.
    pub ciphertexts: Vec<C>,
    /// Time by layer.
    pub trace: Vec<LayerTime>,
}

/// How the caller follows and stops a run.
pub struct Control<'a> {
    /// Called before each step with its index, the number of steps and the layer's name.
    pub progress: &'a (dyn Fn(usize, usize, &str) + Sync),
    /// Checked before each step.
    pub cancel: &'a AtomicBool,
}

static NEVER: AtomicBool = AtomicBool::new(false);

impl Default for Control<'_> {
    fn default() -> Self {
        Self { progress: &|_, _, _| {}, cancel: &NEVER }
    }
}

impl Program {
    /// Checks `plan` and derives its rotations and weight vectors.
    ///
    /// # Errors
    /// [`ExecError::Plan`] where the plan contradicts itself or asks for too much memory.
    pub fn load(plan: ServerPlan) -> Result<Self, ExecError> {
        plan.validate()?;
        let lowered = plan.lowered()?;
        let mut last_use = vec![0; plan.values.len()];
        for (k, step) in plan.steps.iter().enumerate() {
            match &step.kind {
                StepKind::Square { input } => last_use[*input] = k,
                StepKind::Linear(linear) => linear.terms.iter().for_each(|t| last_use[t.value] = k),
            }
        }
        last_use[plan.output] = usize::MAX;
        Ok(Self { plan, lowered, last_use })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &ServerPlan {
        &self.plan
    }

    /// The rotations and weight vectors of each step; none for squares.
    #[must_use]
    pub fn lowered(&self) -> Vec<Option<&Diagonals>> {
        self.lowered.iter().map(Option::as_ref).collect()
    }

    /// Carries out every step on `backend`.
    ///
    /// # Errors
    /// [`ExecError::Ckks`] with the layer, [`ExecError::Cancelled`], or [`ExecError::Input`] where the
    /// number of ciphertexts differs.
    pub fn run<B: Backend>(
        &self,
        backend: &B,
        input: Vec<B::Cipher>,
        control: &Control<'_>,
    ) -> Result<Output<B::Cipher>, ExecError> {
        let expected = self.plan.values[0].layout.ciphertexts;
        if input.len() != expected {
            return Err(ExecError::Input {
                what: "ciphertexts",
                expected: expected.to_string(),
                found: input.len().to_string(),
            });
        }
        // From a thread of the pool: from any other, each of thousands of parallel parts would wake two threads and put one to sleep.
        rayon::scope(|_| self.steps(backend, input, control))
    }

    fn steps<B: Backend>(
        &self,
        backend: &B,
        input: Vec<B::Cipher>,
        control: &Control<'_>,
    ) -> Result<Output<B::Cipher>, ExecError> {
        let mut values: Vec<Vec<B::Cipher>> = vec![Vec::new(); self.plan.values.len()];
        values[0] = input;
        let mut trace = Vec::with_capacity(self.plan.steps.len());
        for (k, step) in self.plan.steps.iter().enumerate() {
            if control.cancel.load(Ordering::Relaxed) {
                return Err(ExecError::Cancelled { layer: step.name.clone() });
            }
            (control.progress)(k, self.plan.steps.len(), &step.name);
            let started = Instant::now();
            let out = &self.plan.values[k + 1];
            let result = match (&step.kind, &self.lowered[k]) {
                (StepKind::Square { input }, _) => {
                    par::try_map(&values[*input], |ct| backend.square(ct, out.scale))
                }
                (StepKind::Linear(linear), Some(diagonals)) => {
                    self.linear(backend, &values, k, linear, diagonals)
                }
                (StepKind::Linear(_), None) => Ok(Vec::new()),
            };
            let result = result.map_err(|source| ExecError::Ckks { layer: step.name.clone(), source })?;
            values[k + 1] = result;
            for (value, _) in values.iter_mut().zip(&self.last_use).filter(|&(_, &last)| last <= k) {
                value.clear();
            }
            trace.push(LayerTime { name: step.name.clone(), seconds: started.elapsed().as_secs_f64() });
        }
        Ok(Output { ciphertexts: std::mem::take(&mut values[self.plan.output]), trace })
    }

    fn linear<B: Backend>(
        &self,
        backend: &B,
        values: &[Vec<B::Cipher>],
        k: usize,
        linear: &LinearStep,
        diagonals: &Diagonals,
    ) -> Result<Vec<B::Cipher>, CkksError> {
        let out = &self.plan.values[k + 1];
        let level = out.level + usize::from(linear.is_weighted());
        let schedule = Schedule::new(linear, diagonals, out.layout.slots);
        let mask = linear
            .weighting
            .mask_scale()
            .map(|scale| (out.layout.pattern(&vec![1.0; out.layout.elements()]), scale));
        let rescale = (linear.is_weighted() && mask.is_none()).then_some(out.scale);
        let outputs = self.sums(backend, values, k, linear, &schedule, rescale)?;
        let bias = self.bias(linear, out);
        par::try_map(outputs.into_iter().enumerate(), |(o, total)| {
            // An output ciphertext that no weight reaches holds zeros: any input times zero.
            let mut x = match total {
                Some(total) => total,
                None => self.zero(backend, values, linear, out, level, rescale)?,
            };
            if let Some((mask, scale)) = &mask {
                x = backend.rescale(&backend.mask(&x, &mask[o], *scale)?, out.scale)?;
            }
            if let Weighting::Constant(factor) = linear.weighting {
                x = backend.constant(x, factor, out.scale)?;
            }
            for &fold in &diagonals.folds {
                for rotated in backend.rotate_many(&x, &[fold])? {
                    backend.add_assign(&mut x, &rotated)?;
                }
            }
            match bias.get(o) {
                Some(bias) => backend.add_slots(&x, bias),
                None => Ok(x),
            }
        })
    }

    /// The sums of a step, one an output.
    fn sums<B: Backend>(
        &self,
        backend: &B,
        values: &[Vec<B::Cipher>],
        k: usize,
        linear: &LinearStep,
        schedule: &Schedule<'_>,
        rescale: Option<f64>,
    ) -> Result<Vec<Option<B::Cipher>>, CkksError> {
        let out = &self.plan.values[k + 1];
        let level = out.level + usize::from(linear.is_weighted());
        let (inputs, places) = Self::positions(backend, values, linear, schedule, level)?;
        let babies: Vec<(usize, usize)> = schedule
            .babies
            .iter()
            .map(|&(term, ct, position, rotation)| {
                (places.partition_point(|&p| p < (term, ct, position)), rotation)
            })
            .collect();
        if !linear.is_weighted() {
            return self.plain_sums(backend, &inputs, &babies, schedule);
        }
        let outputs: Vec<Vec<GiantSum<'_>>> = schedule
            .outputs
            .iter()
            .map(|output| output.giants.iter().map(|g| self.giant(linear, out, g)).collect())
            .collect();
        backend.weighted_rotations(&WeightedRotations {
            inputs: &inputs,
            babies: &babies,
            outputs: &outputs,
            rescale,
            double_hoisted: double_hoisting_pays(&self.plan, k, schedule),
        })
    }

    /// The inputs at `level`, each rotated to every position where it is wanted: (term, ciphertext, rotation), in order.
    #[expect(clippy::type_complexity, reason = "two lists that belong together")]
    fn positions<B: Backend>(
        backend: &B,
        values: &[Vec<B::Cipher>],
        linear: &LinearStep,
        schedule: &Schedule<'_>,
        level: usize,
    ) -> Result<(Vec<B::Cipher>, Vec<(usize, usize, usize)>), CkksError> {
        let mut places: Vec<_> =
            schedule.babies.iter().map(|&(term, ct, position, _)| (term, ct, position)).collect();
        places.dedup();
        let alike: Vec<_> = places.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)).collect();
        let inputs = par::try_map(alike, |own| {
            let (term, ct, _) = own[0];
            let input = backend.drop_to(&values[linear.terms[term].value][ct], level)?;
            let rotations: Vec<usize> = own.iter().map(|p| p.2).collect();
            if rotations == [0] { Ok(vec![input]) } else { backend.rotate_many(&input, &rotations) }
        })?;
        Ok((inputs.into_iter().flatten().collect(), places))
    }

    fn giant<'a>(&'a self, linear: &'a LinearStep, out: &'a Value, giant: &Giant<'a>) -> GiantSum<'a> {
        let rotation = giant.rotation;
        let product = |&product: &Product<'a>| {
            let weights = move || {
                let scale = self.weight_scale(linear, out, product.diagonal.term);
                Weights { period: product.weights(rotation), scale }
            };
            (product.baby, Box::new(weights) as Box<_>)
        };
        let numbers = giant.products.iter().map(|p| p.diagonal.weights.len()).sum();
        GiantSum { rotation, numbers, products: giant.products.iter().map(product).collect() }
    }

    /// The sums of a step whose weights are all one constant.
    fn plain_sums<B: Backend>(
        &self,
        backend: &B,
        inputs: &[B::Cipher],
        babies: &[(usize, usize)],
        schedule: &Schedule<'_>,
    ) -> Result<Vec<Option<B::Cipher>>, CkksError> {
        let rotated = linear::rotations(backend, inputs, babies)?;
        let sum = |giant: &Giant<'_>| {
            let terms: Vec<&B::Cipher> = giant.products.iter().map(|p| &rotated[p.baby]).collect();
            linear::turn(backend, backend.sum(&terms)?, giant.rotation)
        };
        let output = |output: &OutputSchedule<'_>| {
            let sums = par::try_map(&output.giants, sum)?;
            if sums.is_empty() {
                return Ok(None);
            }
            backend.sum(&sums.iter().collect::<Vec<_>>()).map(Some)
        };
        par::try_map(&schedule.outputs, output)
    }

    fn zero<B: Backend>(
        &self,
        backend: &B,
        values: &[Vec<B::Cipher>],
        linear: &LinearStep,
        out: &Value,
        level: usize,
        rescale: Option<f64>,
    ) -> Result<B::Cipher, CkksError> {
        let value = &values[linear.terms[0].value];
        let x = backend.drop_to(&value[0], level)?;
        let scale = self.weight_scale(linear, out, 0);
        let zero = backend.weighted_sum(&[(&x, Weights { period: vec![0.0], scale })])?;
        rescale.map_or(Ok(zero.clone()), |scale| backend.rescale(&zero, scale))
    }

    /// The scale of the weights on `term`, so that the rescaled product stands at the output's scale.
    fn weight_scale(&self, linear: &LinearStep, out: &Value, term: usize) -> f64 {
        let mask = linear.weighting.mask_scale().unwrap_or(1.0);
        let input = &self.plan.values[linear.terms[term].value];
        let step = self.plan.parameters.step(out.level + 1);
        out.scale * step / (input.scale * mask)
    }

    /// The bias as slot vectors of one period, zero in unused slots; empty where there is none.
    fn bias(&self, linear: &LinearStep, out: &Value) -> Vec<Vec<f64>> {
        if linear.bias.is_empty() {
            return Vec::new();
        }
        let per = out.layout.elements() / linear.bias.len();
        let values: Vec<f64> =
            linear.bias.iter().flat_map(|&b| std::iter::repeat_n(f64::from(b), per)).collect();
        out.layout.pattern(&values)
    }
}
