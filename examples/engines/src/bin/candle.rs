//! Softmax along the last axis in candle, as a custom op in place of
//! `candle_nn::ops::softmax_last_dim`: checked beside it, then timed.
//!
//! `cargo run --release --bin candle -- [--quick]`; `RAYON_NUM_THREADS=1` for one thread, of both.

use candle_core::utils::get_num_threads;
use candle_core::{
    CpuStorage, CustomOp1, DType, Device, InplaceOp1, Layout, Result as CandleResult, Shape,
    Tensor, WithDType, bail,
};
use softmax::half::{bf16, f16};
use softmax::{Matrix, MatrixMut};
use softmax_engines::{
    Bits, Bounds, Error, check_bits, check_errors, interleaved, logits, quick, seconds,
};

/// The softmax along the last axis, with the options of the library.
/// `tensor.apply_op1_no_bwd(&SoftmaxLastDim::default())` gives a new tensor,
/// `tensor.inplace_op1(&SoftmaxLastDim::default())` overwrites it. Both use rayon's threads where
/// that pays, as candle's own op does.
#[derive(Default)]
struct SoftmaxLastDim {
    options: softmax::Softmax<'static>,
}

/// The range of a tensor's elements, whose last axis has `cols`. As in candle's own op they must be
/// contiguous, from any offset.
fn place(layout: &Layout) -> CandleResult<(std::ops::Range<usize>, usize)> {
    match (layout.contiguous_offsets(), layout.dims().last()) {
        (Some((start, end)), Some(&cols)) => Ok((start..end, cols)),
        (None, _) => bail!("input has to be contiguous, but has shape {layout:?}"),
        (_, None) => bail!("a scalar has no last axis"),
    }
}

impl SoftmaxLastDim {
    fn rows<T: Element>(&self, x: &[T], layout: &Layout) -> CandleResult<CpuStorage> {
        let (place, cols) = place(layout)?;
        let x = &x[place];
        let mut y = vec![T::ZERO; x.len()];
        Matrix::new(x, cols)
            .and_then(|x| Ok((x, MatrixMut::new(&mut y, cols)?)))
            .map_err(softmax::Error::from)
            .and_then(|(x, y)| self.options.softmax(x, y))
            .map_err(candle_core::Error::wrap)?;
        Ok(T::to_cpu_storage_owned(y))
    }

    fn rows_in_place<T: Element>(&self, x: &mut [T], layout: &Layout) -> CandleResult<()> {
        let (place, cols) = place(layout)?;
        MatrixMut::new(&mut x[place], cols)
            .map_err(softmax::Error::from)
            .and_then(|x| self.options.softmax_in_place(x))
            .map_err(candle_core::Error::wrap)
    }
}

/// An element for both libraries.
trait Element: softmax::Element + WithDType {}
impl<T: softmax::Element + WithDType> Element for T {}

impl CustomOp1 for SoftmaxLastDim {
    fn name(&self) -> &'static str {
        "softmax-last-dim"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> CandleResult<(CpuStorage, Shape)> {
        let y = match storage {
            CpuStorage::F32(x) => self.rows(x, layout),
            CpuStorage::F64(x) => self.rows(x, layout),
            CpuStorage::F16(x) => self.rows(x, layout),
            CpuStorage::BF16(x) => self.rows(x, layout),
            other => {
                bail!("no softmax of {:?}", candle_core::backend::BackendStorage::dtype(other))
            }
        }?;
        Ok((y, layout.shape().clone()))
    }
}

impl InplaceOp1 for SoftmaxLastDim {
    fn name(&self) -> &'static str {
        "softmax-last-dim-in-place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        match storage {
            CpuStorage::F32(x) => self.rows_in_place(x, layout),
            CpuStorage::F64(x) => self.rows_in_place(x, layout),
            CpuStorage::F16(x) => self.rows_in_place(x, layout),
            CpuStorage::BF16(x) => self.rows_in_place(x, layout),
            other => {
                bail!("no softmax of {:?}", candle_core::backend::BackendStorage::dtype(other))
            }
        }
    }
}

fn ours(x: &Tensor) -> CandleResult<Tensor> {
    x.apply_op1_no_bwd(&SoftmaxLastDim::default())
}

fn theirs(x: &Tensor) -> CandleResult<Tensor> {
    candle_nn::ops::softmax_last_dim(x)
}

fn elements<T: WithDType>(x: &Tensor) -> CandleResult<Vec<T>> {
    x.flatten_all()?.to_vec1()
}

/// Checks that bits are those of the library, shapes those of candle, and results near candle's.
fn check<T: Bits + WithDType>(shape: &[usize], bounds: Bounds) -> Result<(), Error> {
    let (rows, cols) = (shape[..shape.len() - 1].iter().product(), shape[shape.len() - 1]);
    let what = format!("{shape:?} {}", T::NAME);
    let x = logits::<T>(rows, cols);
    let tensor = Tensor::from_vec(x.clone(), shape, &Device::Cpu)?;
    let mut want = vec![T::ZERO; x.len()];
    softmax::softmax_rows(&x, &mut want, cols)?;

    let (got, before) = (ours(&tensor)?, theirs(&tensor)?);
    if got.shape() != before.shape() || got.dtype() != before.dtype() {
        return Err(format!("{what}: {:?}, not {:?}", got.shape(), before.shape()).into());
    }
    let (got, before) = (elements::<T>(&got)?, elements::<T>(&before)?);
    check_bits(&got, &want, &what)?;
    let in_place = tensor.copy()?;
    in_place.inplace_op1(&SoftmaxLastDim::default())?;
    check_bits(&elements::<T>(&in_place)?, &want, &format!("{what} in place"))?;

    // A contiguous part of a tensor with an offset.
    if shape.len() > 1 && shape[0] > 1 {
        let from = |x: &Tensor| x.narrow(0, 1, shape[0] - 1);
        let part = ours(&from(&tensor)?)?;
        check_bits(
            &elements::<T>(&part)?,
            &want[want.len() / shape[0]..],
            &format!("{what} part"),
        )?;
        let in_place = tensor.copy()?;
        from(&in_place)?.inplace_op1(&SoftmaxLastDim::default())?;
        let first = x.len() / shape[0];
        let expected = [&x[..first], &want[first..]].concat();
        check_bits(&elements::<T>(&in_place)?, &expected, &format!("{what} part in place"))?;
    }
    // A part that is not contiguous: refused, as by candle's own op, and right after a copy.
    if rows > 1 && cols > 1 {
        let last = tensor.dims().len() - 1;
        let turned = tensor.transpose(last - 1, last)?;
        if ours(&turned).is_ok() || theirs(&turned).is_ok() {
            return Err(format!("{what}: a transposed tensor was not refused").into());
        }
        let copy = turned.contiguous()?;
        let columns = copy.dims()[last];
        let mut want = vec![T::ZERO; x.len()];
        softmax::softmax_rows(&elements::<T>(&copy)?, &mut want, columns)?;
        check_bits(&elements::<T>(&ours(&copy)?)?, &want, &format!("{what} transposed"))?;
    }

    check_errors(&x, &got, ("candle", &before), cols, bounds, &what)
}

/// Times both for a shape.
fn time<T: Bits + WithDType>(shape: &[usize], rounds: usize) -> Result<(), Error> {
    let (rows, cols) = (shape[..shape.len() - 1].iter().product(), shape[shape.len() - 1]);
    let x = Tensor::from_vec(logits::<T>(rows, cols), shape, &Device::Cpu)?;
    let in_place = x.copy()?;
    let times = interleaved(
        rounds,
        &mut [&mut || seconds(|| theirs(&x)), &mut || seconds(|| ours(&x)), &mut || {
            seconds(|| in_place.inplace_op1(&SoftmaxLastDim::default()))
        }],
    )?;
    let [before, after, in_place] = times[..] else { unreachable!("three were run") };
    println!(
        "{shape:?} {}: candle {:.3} ms, custom op {:.3} ms ({:.2} times as fast), in place {:.3} ms ({:.2} times)",
        T::NAME,
        before * 1e3,
        after * 1e3,
        before / after,
        in_place * 1e3,
        before / in_place,
    );
    Ok(())
}

fn main() -> Result<(), Error> {
    let quick = quick()?;
    println!("kernel {}, {} threads", softmax::default_kernel()?.name(), get_num_threads());
    for shape in [&[7][..], &[3, 1], &[5, 10], &[2, 3, 33, 64], &[1, 4, 64, 512], &[3, 32_000]] {
        check::<f32>(shape, Bounds { ours: 3.0, peer: 64.0 })?;
        check::<f64>(shape, Bounds { ours: 5.0, peer: 160.0 })?;
        check::<f16>(shape, Bounds { ours: 0.51, peer: 600.0 })?;
        check::<bf16>(shape, Bounds { ours: 0.51, peer: 400.0 })?;
    }
    let none = Tensor::zeros((2, 0), DType::F32, &Device::Cpu)?;
    if ours(&none)?.dims() != [2, 0] || ours(&none.to_dtype(DType::U32)?).is_ok() {
        return Err("an empty tensor, or one of integers".into());
    }

    let (attention, rounds) = if quick { (32, 5) } else { (512, 61) };
    for shape in [&[1, 32, attention, 512][..], &[32, 32_000]] {
        time::<f32>(shape, rounds)?;
        time::<f16>(shape, rounds.min(15))?;
        time::<bf16>(shape, rounds.min(15))?;
    }
    time::<f64>(&[1, 32, attention, 512], rounds.min(15))
}
