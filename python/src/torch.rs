//! PyTorch's tensors, seen through their own methods. PyTorch is never imported here: whoever has
//! a tensor has imported it.

use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};

use smallvec::SmallVec;

use crate::array::{Dtype, Sizes, Strides};
use crate::dlpack::{Exchange, Seen};

/// What is needed of the module `torch`.
pub struct Torch {
    tensor: Py<PyType>,
    /// Of tensors themselves, not of classes derived from theirs.
    exchange: Option<Exchange>,
    parameter: Option<Py<PyAny>>,
    strided: Py<PyAny>,
    dtypes: Vec<(Dtype, Py<PyAny>)>,
    empty: Py<PyAny>,
    empty_like: Py<PyAny>,
    is_grad_enabled: Py<PyAny>,
    increment_version: Option<Increment>,
}

/// A tensor that can be read where it is.
pub struct Tensor<'py> {
    pub object: Bound<'py, PyAny>,
    pub dtype: Dtype,
    pub data: usize,
    pub shape: Sizes,
    pub strides: Strides,
    /// Whether its class is PyTorch's own, not one derived from it.
    pub plain: bool,
}

static TORCH: PyOnceLock<Torch> = PyOnceLock::new();

impl Torch {
    /// If the object is a tensor.
    pub fn if_tensor<'py>(x: &Bound<'py, PyAny>) -> PyResult<Option<&'py Self>> {
        let py = x.py();
        let torch = match TORCH.get(py) {
            Some(torch) => torch,
            None => {
                let modules = py.import(intern!(py, "sys"))?.getattr(intern!(py, "modules"))?;
                let Ok(module) = modules.cast::<PyDict>()?.as_any().get_item("torch") else {
                    return Ok(None);
                };
                // One that is just being imported has no tensors yet.
                let Ok(torch) = Self::new(&module) else { return Ok(None) };
                TORCH.get_or_init(py, || torch)
            }
        };
        Ok(x.is_instance(torch.tensor.bind(py))?.then_some(torch))
    }

    /// Of a process that has had a tensor.
    pub fn get<'py>(py: Python<'py>) -> PyResult<&'py Self> {
        TORCH.get(py).ok_or_else(|| PyRuntimeError::new_err("there has been no tensor"))
    }

    fn new(module: &Bound<PyAny>) -> PyResult<Self> {
        let dtypes = Dtype::ALL.into_iter();
        let dtypes = dtypes.map(|d| Ok((d, module.getattr(d.name())?.unbind())));
        let tensor = module.getattr("Tensor")?.cast_into::<PyType>()?;
        Ok(Self {
            exchange: Exchange::of(&tensor),
            parameter: module
                .getattr("nn")
                .and_then(|nn| nn.getattr("Parameter"))
                .ok()
                .map(Bound::unbind),
            tensor: tensor.unbind(),
            strided: module.getattr("strided")?.unbind(),
            dtypes: dtypes.collect::<PyResult<_>>()?,
            empty: module.getattr("empty")?.unbind(),
            empty_like: module.getattr("empty_like")?.unbind(),
            is_grad_enabled: module.getattr("is_grad_enabled")?.unbind(),
            increment_version: Increment::of(module).ok(),
        })
    }

    /// What DLPack's C functions tell of a tensor or parameter.
    fn seen(&self, x: &Bound<PyAny>) -> Option<Seen> {
        let exchange = self.exchange.as_ref()?;
        let class = x.get_type();
        let known = class.is(&self.tensor) || self.parameter.as_ref().is_some_and(|p| class.is(p));
        if known { exchange.read(x) } else { None }
    }

    /// Refuses by name what cannot be read here.
    pub fn readable<'py>(&self, x: &Bound<'py, PyAny>, name: &str) -> PyResult<Tensor<'py>> {
        let py = x.py();
        let get = |attribute| x.getattr(attribute);
        // PyTorch's negative bit: the elements are the opposite of what is in memory.
        let is_negative = || x.call_method0(intern!(py, "is_neg"))?.is_truthy();
        if let Some(seen) = self.seen(x)
            && !get(intern!(py, "requires_grad"))?.is_truthy()?
            && !is_negative()?
        {
            return Ok(Tensor::plain(x.clone(), seen));
        }
        // The long way, which finds the reason why there is no short one.
        if !get(intern!(py, "layout"))?.is(&self.strided) {
            let layout = get(intern!(py, "layout"))?;
            return Err(PyTypeError::new_err(format!("{name} is a tensor of layout {layout}")));
        }
        if !get(intern!(py, "is_cpu"))?.is_truthy()? {
            let device = get(intern!(py, "device"))?.str()?.to_string();
            return Err(PyTypeError::new_err(format!(
                "{name} is a tensor on {device}, and softmax works on the CPU: call .cpu() first"
            )));
        }
        if get(intern!(py, "requires_grad"))?.is_truthy()?
            && self.is_grad_enabled.call0(py)?.is_truthy(py)?
        {
            return Err(PyTypeError::new_err(format!(
                "{name} is a tensor that requires grad: use softmax.torch, whose functions have \
                 gradients, or .detach()"
            )));
        }
        let its = get(intern!(py, "dtype"))?;
        let Some((dtype, _)) = self.dtypes.iter().find(|(_, d)| its.is(d)) else {
            let wide = get(intern!(py, "is_floating_point"))?.call0()?.is_truthy()?
                || get(intern!(py, "is_complex"))?.call0()?.is_truthy()?;
            if wide {
                return Err(PyTypeError::new_err(format!(
                    "{name} is a tensor of {its}: softmax has float32, float64, float16 and \
                     bfloat16"
                )));
            }
            // Other integers.
            return self.readable(&x.call_method0(intern!(py, "long"))?, name);
        };
        if is_negative()? {
            return self.readable(&x.call_method0(intern!(py, "resolve_neg"))?, name);
        }
        let nothing = |cause| {
            let error = PyTypeError::new_err(format!(
                "{name}, a {}, has no memory that could be read",
                crate::options::type_name(x)
            ));
            error.set_cause(py, cause);
            error
        };
        let data = x.call_method0(intern!(py, "data_ptr")).map_err(|e| nothing(Some(e)))?;
        let (data, shape): (usize, Sizes) = (data.extract()?, sizes(&get(intern!(py, "shape"))?)?);
        // Tensors of tracers tell a null pointer.
        if data == 0 && !shape.contains(&0) {
            return Err(nothing(None));
        }
        Ok(Tensor {
            dtype: *dtype,
            data,
            shape,
            strides: sizes(&x.call_method0(intern!(py, "stride"))?)?,
            object: x.clone(),
            plain: false,
        })
    }

    /// A new tensor of the type, shape and order of axes of `x`.
    pub fn empty_like<'py>(&self, x: &Bound<'py, PyAny>, dtype: Dtype) -> PyResult<Tensor<'py>> {
        self.fresh(self.empty_like.bind(x.py()).call1((x,))?, dtype)
    }

    /// A new tensor in C order.
    pub fn empty<'py>(
        &self,
        py: Python<'py>,
        shape: &[usize],
        dtype: Dtype,
    ) -> PyResult<Tensor<'py>> {
        if let Some(made) = self.small(py, shape, dtype) {
            return made;
        }
        let found = self.dtypes.iter().find(|(d, _)| *d == dtype);
        let kwargs = PyDict::new(py);
        kwargs.set_item(intern!(py, "dtype"), found.map(|(_, d)| d))?;
        self.fresh(self.empty.bind(py).call((PyTuple::new(py, shape)?,), Some(&kwargs))?, dtype)
    }

    /// A new tensor in C order, of PyTorch's own class, if it is small.
    pub fn small<'py>(
        &self,
        py: Python<'py>,
        shape: &[usize],
        dtype: Dtype,
    ) -> Option<PyResult<Tensor<'py>>> {
        let made = self.exchange.as_ref()?.small(py, shape, dtype)?;
        Some(made.map(|(object, seen)| Tensor::plain(object, seen)))
    }

    /// A tensor that PyTorch made here, of which there is nothing to refuse.
    fn fresh<'py>(&self, x: Bound<'py, PyAny>, dtype: Dtype) -> PyResult<Tensor<'py>> {
        let py = x.py();
        if let Some(seen) = self.seen(&x) {
            return Ok(Tensor::plain(x, seen));
        }
        let data = x.call_method0(intern!(py, "data_ptr"))?.extract()?;
        let shape = sizes(&x.getattr(intern!(py, "shape"))?)?;
        let strides = sizes(&x.call_method0(intern!(py, "stride"))?)?;
        Ok(Tensor { object: x, dtype, data, shape, strides, plain: false })
    }

    /// Tells autograd that a tensor has been written, so that it does not use what it has kept.
    pub fn written(&self, x: &Bound<PyAny>) -> PyResult<()> {
        let py = x.py();
        match &self.increment_version {
            Some(Increment::OfMany(function)) => drop(function.bind(py).call1(((x,),))?),
            Some(Increment::OfOne(function)) => {
                let has_version = !x.call_method0(intern!(py, "is_inference"))?.is_truthy()?;
                if has_version {
                    function.bind(py).call1((x,))?;
                }
            }
            None => {}
        }
        Ok(())
    }
}

/// The function that tells autograd of written tensors.
enum Increment {
    /// That beneath PyTorch's public one, in half its time. It knows of inference mode.
    OfMany(Py<PyAny>),
    /// The public one of older versions.
    OfOne(Py<PyAny>),
}

impl Increment {
    fn of(torch: &Bound<PyAny>) -> PyResult<Self> {
        if let Ok(function) = torch.getattr("_C").and_then(|c| c.getattr("_increment_version"))
            && function.call1((PyTuple::empty(torch.py()),)).is_ok()
        {
            return Ok(Self::OfMany(function.unbind()));
        }
        let graph = torch.getattr("autograd")?.getattr("graph")?;
        graph.getattr("increment_version").map(Bound::unbind).map(Self::OfOne)
    }
}

impl<'py> Tensor<'py> {
    fn plain(object: Bound<'py, PyAny>, seen: Seen) -> Self {
        let Seen { data, dtype, shape, strides } = seen;
        Self { object, dtype, data, shape, strides, plain: true }
    }
}

fn sizes<'py, T, A>(tuple: &Bound<'py, PyAny>) -> PyResult<SmallVec<A>>
where
    A: smallvec::Array<Item = T>,
    T: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    tuple.cast::<PyTuple>()?.iter().map(|n| n.extract()).collect()
}
