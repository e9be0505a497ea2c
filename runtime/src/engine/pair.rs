//! An instance that runs two plans at once, one in each lane of its vectors.

use std::sync::Arc;

use orrery_lang::Meta;
use orrery_lang::abi::{self, lanes};
use wasmtime::{Memory, Store, StoreLimits, TypedFunc};

use super::{CONTEXT, Model, deadline_epochs, guest_error};
use crate::error::NodeError;
use crate::graph::Limits;

/// One running instance of a model for two lanes.
pub(crate) struct PairNode {
    store: Store<StoreLimits>,
    memory: Memory,
    solve: TypedFunc<i32, i32>,
    meta: Arc<Meta>,
    limits: Limits,
    /// What one lane sees.
    image: Vec<u8>,
}

impl Model {
    /// A fresh instance under these limits, of a module for two lanes.
    ///
    /// # Errors
    /// [`NodeError`] when the module does not fit the limits or the ABI.
    pub(crate) fn pair(&self, limits: Limits) -> Result<PairNode, NodeError> {
        let (store, memory, solve) = self.instance(limits, lanes::LANES as u32)?;
        Ok(PairNode {
            store,
            memory,
            solve,
            meta: Arc::clone(&self.meta),
            limits,
            image: Vec::new(),
        })
    }
}

impl PairNode {
    /// Starts the time that the next solves may take together.
    pub(crate) fn arm(&mut self) {
        self.store.set_epoch_deadline(deadline_epochs(self.limits));
    }

    /// Runs two plans that differ in values alone.
    pub(crate) fn solve(&mut self, plans: &[abi::Plan; 2]) -> Result<[(abi::Status, abi::Rows); 2], NodeError> {
        let layout = abi::Layout::for_plan(&self.meta, &plans[0]);
        let bytes = (u64::from(CONTEXT) + u64::from(layout.bytes)).next_multiple_of(8);
        let pages = (bytes * lanes::LANES as u64).div_ceil(u64::from(abi::PAGE));
        let have = self.memory.size(&self.store);
        let too_much = || NodeError::Memory {
            limit_mib: self.limits.memory_mib,
        };
        if pages > have {
            self.memory
                .grow(&mut self.store, pages - have)
                .map_err(|_| too_much())?;
        }
        self.image.resize(bytes as usize, 0);
        // What the host writes lies before the rows.
        let given = (CONTEXT + layout.rows_at).next_multiple_of(8) as usize;
        for (lane, plan) in plans.iter().enumerate() {
            lanes::read(self.memory.data(&self.store), lane, 0, &mut self.image[..given]).ok_or_else(too_much)?;
            abi::write_plan(&mut self.image, CONTEXT, &self.meta, plan).map_err(|error| NodeError::Numerical {
                message: error.to_string(),
            })?;
            let memory = self.memory.data_mut(&mut self.store);
            lanes::write(memory, lane, 0, &self.image[..given]).ok_or_else(too_much)?;
        }
        self.solve
            .call(&mut self.store, CONTEXT as i32)
            .map_err(|error| guest_error(&error, self.limits))?;
        let mut both = Vec::new();
        for lane in 0..lanes::LANES {
            lanes::read(self.memory.data(&self.store), lane, 0, &mut self.image).ok_or_else(too_much)?;
            let status = abi::read_status(&self.image, CONTEXT, &self.meta);
            both.push((status, abi::read_outputs(&self.image, CONTEXT, &self.meta, &layout)));
        }
        both.try_into()
            .map_err(|_| NodeError::Abi("it has not two lanes".to_owned()))
    }
}
