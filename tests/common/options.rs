//! The options of all operations in one value, for tests that choose the operation at run time.

use softmax::{
    Attention, Backward, Caches, CrossEntropy, Element, Error, Exec, Executor, Hardmax, Kernel,
    LogProbs, Masked, Op, Plan, Sampler, Shape, Shards, Sigmoid, Softmax, Threads, Ties, TopK,
};

#[derive(Clone, Copy, Debug)]
enum Factor {
    One,
    Scale(f64),
    Temperature(f64),
}

/// Options; each operation uses those that it has a setter for.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    pub exec: Exec<'a>,
    factor: Factor,
    masked: Masked,
}

/// An [`Exec`] with one kernel.
pub fn by(kernel: &'static Kernel) -> Exec<'static> {
    Exec::new().kernel(kernel)
}

macro_rules! scaled {
    ($options:expr, $operation:expr) => {
        match $options.factor {
            Factor::One => $operation,
            Factor::Scale(scale) => $operation.scale(scale),
            Factor::Temperature(temperature) => $operation.temperature(temperature),
        }
        .exec($options.exec)
    };
}

impl<'a> Options<'a> {
    pub const fn new() -> Self {
        Self { exec: Exec::new(), factor: Factor::One, masked: Masked::Nan }
    }

    pub const fn scale(self, scale: f64) -> Self {
        Self { factor: Factor::Scale(scale), ..self }
    }

    pub const fn temperature(self, temperature: f64) -> Self {
        Self { factor: Factor::Temperature(temperature), ..self }
    }

    pub const fn masked(self, masked: Masked) -> Self {
        Self { masked, ..self }
    }

    pub const fn kernel(self, kernel: &'static Kernel) -> Self {
        Self { exec: self.exec.kernel(kernel), ..self }
    }

    pub const fn threads(self, threads: Threads) -> Self {
        Self { exec: self.exec.threads(threads), ..self }
    }

    pub const fn executor(self, executor: &'a dyn Executor) -> Self {
        Self { exec: self.exec.executor(executor), ..self }
    }

    pub const fn caches(self, caches: Caches) -> Self {
        Self { exec: self.exec.caches(caches), ..self }
    }

    pub fn plan<T: Element>(&self, op: Op, shape: Shape) -> Result<Plan, Error> {
        self.exec.plan::<T>(op, shape)
    }

    pub fn softmax(&self) -> Softmax<'a> {
        scaled!(self, Softmax::new()).masked(self.masked)
    }

    pub fn sigmoid(&self) -> Sigmoid<'a> {
        scaled!(self, Sigmoid::new())
    }

    pub fn hardmax(&self, ties: Ties) -> Hardmax<'a> {
        Hardmax::new().ties(ties).masked(self.masked).exec(self.exec)
    }

    pub fn top_k(&self, k: usize) -> TopK<'a> {
        scaled!(self, TopK::new(k)).masked(self.masked)
    }

    pub fn log_probs(&self) -> LogProbs<'a> {
        scaled!(self, LogProbs::new()).masked(self.masked)
    }

    pub fn backward(&self) -> Backward<'a> {
        scaled!(self, Backward::new())
    }

    pub fn cross_entropy(&self) -> CrossEntropy<'a> {
        scaled!(self, CrossEntropy::new())
    }

    pub fn attention(&self, heads: usize, queries: usize) -> Attention<'a> {
        scaled!(self, Attention::new(heads, queries)).masked(self.masked)
    }

    pub fn shards(&self) -> Shards<'a> {
        scaled!(self, Shards::new()).masked(self.masked)
    }

    /// A sampler, which has no scale, and a temperature of its own.
    pub fn sampler(&self, seed: u64) -> Sampler<'a> {
        Sampler::new(seed).exec(self.exec)
    }
}
