//! Softmax in tract, as a custom op in place of the one of tract-core: models with either are run
//! side by side, checked, then timed.
//!
//! `cargo run --release --bin tract -- [--quick]`. One thread, as tract runs by default.

use softmax::half::f16;
use softmax::{Exec, Softmax, Threads};
use softmax_engines::{
    Bits, Bounds, Error, check_bits, check_errors, interleaved, logits, quick, seconds,
};
use tract_core::internal::*;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::nn::SoftmaxKind;

/// The softmax along an axis, in f32, f64 or f16. It implements what tract's own op does, so that
/// the optimiser can move axes around it in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ExactSoftmax {
    axis: usize,
}

/// Replaces every softmax of a model that is along one axis of floats. Others (quantized, along
/// several axes, logarithms) stay.
fn replace(model: &mut TypedModel) -> TractResult<()> {
    let rule = |_: &(),
                model: &TypedModel,
                node: &TypedNode,
                _: &str,
                op: &tract_core::ops::nn::Softmax| {
        let is_float = model.outlet_fact(node.inputs[0])?.datum_type.is_float();
        match op.axes[..] {
            [axis] if op.kind == SoftmaxKind::Softmax && is_float => {
                let op = ExactSoftmax { axis };
                TypedModelPatch::replace_single_op(model, node, &node.inputs, op).map(Some)
            }
            _ => Ok(None),
        }
    };
    Rewriter::default().with_rule_for("exact-softmax", rule).rewrite(&(), model)
}

impl Op for ExactSoftmax {
    fn name(&self) -> StaticName {
        "ExactSoftmax".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("axis: {}", self.axis)])
    }

    op_as_typed_op!();
}

impl EvalOp for ExactSoftmax {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs);
        match input.datum_type() {
            DatumType::F32 => self.along::<f32>(input),
            DatumType::F64 => self.along::<f64>(input),
            DatumType::F16 => self.along::<f16>(input),
            other => bail!("no softmax of {other:?}"),
        }
    }
}

impl ExactSoftmax {
    /// In place. tract copies the tensor first if it is shared, which is unusual between two ops.
    fn along<T: Datum + softmax::Element>(&self, input: TValue) -> TractResult<TVec<TValue>> {
        let mut tensor = input.into_tensor();
        let (shape, axis) = (tensor.shape().to_vec(), self.axis as isize);
        let mut plain = tensor.try_as_plain_ram_mut()?;
        let elements = plain.as_slice_mut::<T>()?;
        let serial = Exec::new().threads(Threads::Serial);
        Softmax::new().exec(serial).softmax_axis_in_place(elements, &shape, axis)?;
        Ok(tvec!(tensor.into_tvalue()))
    }
}

impl TypedOp for ExactSoftmax {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(self.axis < inputs[0].rank(), "no axis {} in {:?}", self.axis, inputs[0]);
        Ok(tvec!(inputs[0].datum_type.fact(inputs[0].shape.clone())))
    }

    fn axes_mapping(
        &self,
        inputs: &[&TypedFact],
        outputs: &[&TypedFact],
    ) -> TractResult<AxesMapping> {
        AxesMapping::natural(inputs, outputs)
    }

    fn change_axes(
        &self,
        model: &TypedModel,
        node: &TypedNode,
        _: InOut,
        change: &AxisOp,
    ) -> TractResult<Option<AxisChangeConsequence>> {
        Ok(change.transform_axis(self.axis).map(|axis| {
            AxisChangeConsequence::new(model, node, Some(Box::new(Self { axis })), change)
        }))
    }
}

/// A model with a single softmax.
fn softmax_alone(dt: DatumType, shape: &[usize], axis: usize) -> TractResult<TypedModel> {
    let mut model = TypedModel::default();
    let x = model.add_source("x", dt.fact(shape))?;
    let softmax = tract_core::ops::nn::Softmax { axes: tvec!(axis), ..Default::default() };
    let y = model.wire_node("softmax", softmax, &[x])?;
    model.select_output_outlets(&y)?;
    Ok(model)
}

/// Attention: softmax(Q K^T) V for each head. (The builder has scaled Q.)
fn attention(dt: DatumType, heads: usize, rows: usize, dim: usize) -> TractResult<TypedModel> {
    let mut model = TypedModel::default();
    let fact = dt.fact([heads, rows, dim]);
    let q = model.add_source("q", fact.clone())?;
    let k = model.add_source("k", fact.clone())?;
    let v = model.add_source("v", fact)?;
    let product = |axes: &str| Ok::<_, TractError>(EinSum::new(axes.parse()?, dt));
    let scores = model.wire_node("scores", product("hqd,hkd->hqk")?, &[q, k])?;
    let softmax = tract_core::ops::nn::Softmax { axes: tvec!(2), ..Default::default() };
    let probs = model.wire_node("softmax", softmax, &scores)?;
    let y = model.wire_node("weighted", product("hqk,hkd->hqd")?, &[probs[0], v])?;
    model.select_output_outlets(&y)?;
    Ok(model)
}

type Plan = Arc<TypedRunnableModel>;

/// The plans of a model as it is, and with its softmax replaced. Each has one softmax of its kind.
fn plans(model: TypedModel) -> TractResult<[Plan; 2]> {
    let mut ours = model.clone().into_decluttered()?;
    replace(&mut ours)?;
    let (theirs, ours) = (model.into_optimized()?, ours.into_optimized()?);
    let count = |model: &TypedModel, name: &str| {
        model.nodes().iter().filter(|node| node.op.name() == name).count()
    };
    ensure!(count(&theirs, "Softmax") == 1 && count(&theirs, "ExactSoftmax") == 0);
    ensure!(count(&ours, "Softmax") == 0 && count(&ours, "ExactSoftmax") == 1);
    Ok([theirs.into_runnable()?, ours.into_runnable()?])
}

fn tensor<T: Datum + Bits>(shape: &[usize]) -> TractResult<TValue> {
    let cols = shape[shape.len() - 1];
    let x = logits::<T>(shape.iter().product::<usize>() / cols, cols);
    Ok(Tensor::from_shape(shape, &x)?.into_tvalue())
}

fn elements<T: Datum>(x: &Tensor) -> TractResult<Vec<T>> {
    Ok(x.try_as_plain_ram()?.as_slice::<T>()?.to_vec())
}

/// Runs a plan with a single output.
fn run<T: Datum>(plan: &Plan, inputs: TVec<TValue>) -> TractResult<(Vec<usize>, Vec<T>)> {
    let y = args_1!(plan.run(inputs)?);
    Ok((y.shape().to_vec(), elements(&y)?))
}

/// Checks that bits are those of the library, shapes those of tract, and results near tract's.
fn check_alone<T: Datum + Bits>(shape: &[usize], axis: usize, bounds: Bounds) -> Result<(), Error> {
    let what = format!("{shape:?} {} axis {axis}", T::NAME);
    let [theirs, ours] = plans(softmax_alone(T::datum_type(), shape, axis)?)?;
    let x = tensor::<T>(shape)?;
    let (before_shape, before) = run::<T>(&theirs, tvec!(x.clone()))?;
    let (got_shape, got) = run::<T>(&ours, tvec!(x.clone()))?;
    if got_shape != before_shape {
        return Err(format!("{what}: {got_shape:?}, not {before_shape:?}").into());
    }
    let x = elements::<T>(&x)?;
    let mut want = vec![T::ZERO; x.len()];
    Softmax::new().softmax_axis(&x, &mut want, shape, axis as isize)?;
    check_bits(&got, &want, &what)?;
    // This tensor is not shared: in place.
    let (_, in_place) = run::<T>(&ours, tvec!(Tensor::from_shape(shape, &x)?.into_tvalue()))?;
    check_bits(&in_place, &want, &format!("{what} in place"))?;

    if axis + 1 == shape.len() {
        check_errors(&x, &got, ("tract", &before), shape[axis], bounds, &what)?;
    }
    Ok(())
}

/// Checks that the two plans of attention agree.
fn check_attention(plans: &[Plan; 2], inputs: &[TValue]) -> Result<(), Error> {
    let (theirs, ours) =
        (run::<f32>(&plans[0], inputs.into())?, run::<f32>(&plans[1], inputs.into())?);
    if theirs.0 != ours.0 {
        return Err(format!("attention: {:?}, not {:?}", ours.0, theirs.0).into());
    }
    // Values of up to 7, weighted in f32. (NaN must not pass.)
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5;
    if !theirs.1.iter().zip(&ours.1).all(near) {
        return Err("attention: the plans differ by more than 1e-5".into());
    }
    println!("attention: the plans differ by less than 1e-5");
    Ok(())
}

/// Times both plans. Inputs are not shared, as between two ops: each run gets copies of its own,
/// made before the clock starts.
fn time(what: &str, plans: &[Plan; 2], inputs: &[TValue], rounds: usize) -> Result<(), Error> {
    let go = |plan: &Plan| {
        let inputs = inputs.iter().map(|x| Tensor::clone(x).into_tvalue()).collect();
        seconds(|| plan.run(inputs))
    };
    let times = interleaved(rounds, &mut [&mut || go(&plans[0]), &mut || go(&plans[1])])?;
    println!(
        "{what}: tract {:.3} ms, softmax replaced {:.3} ms ({:.2} times as fast)",
        times[0] * 1e3,
        times[1] * 1e3,
        times[0] / times[1]
    );
    Ok(())
}

fn time_alone<T: Datum + Bits>(shape: &[usize], rounds: usize) -> Result<(), Error> {
    let plans = plans(softmax_alone(T::datum_type(), shape, shape.len() - 1)?)?;
    time(&format!("{shape:?} {}", T::NAME), &plans, &[tensor::<T>(shape)?], rounds)
}

fn main() -> Result<(), Error> {
    let quick = quick()?;
    println!("kernel {}, 1 thread", softmax::default_kernel()?.name());
    for (shape, axis) in [
        (&[7][..], 0),
        (&[5, 10], 1),
        (&[2, 3, 33, 64], 3),
        (&[2, 3, 33, 64], 1),
        (&[1, 4, 64, 512], 3),
        (&[3, 32_000], 1),
    ] {
        check_alone::<f32>(shape, axis, Bounds { ours: 3.0, peer: 64.0 })?;
        check_alone::<f64>(shape, axis, Bounds { ours: 5.0, peer: 160.0 })?;
        check_alone::<f16>(shape, axis, Bounds { ours: 0.51, peer: 64.0 })?;
    }
    let (rows, rounds) = if quick { (64, 5) } else { (512, 31) };
    let qkv = [0, 1, 2].map(|_| tensor::<f32>(&[8, rows, 64]));
    let mut inputs = Vec::new();
    for x in qkv {
        inputs.push(x?);
    }
    let both = plans(attention(f32::datum_type(), 8, rows, 64)?)?;
    check_attention(&both, &inputs)?;

    time_alone::<f32>(&[1, 32, rows, 512], rounds)?;
    time_alone::<f32>(&[32, 32_000], rounds)?;
    time_alone::<f16>(&[1, 32, rows, 512], rounds.min(7))?;
    time_alone::<f16>(&[32, 32_000], rounds.min(7))?;
    time(&format!("attention of 8 x {rows} x 64, f32"), &both, &inputs, rounds)
}
