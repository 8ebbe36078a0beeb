//! Checkouts of stages that other stages copy files from: opened once, shared, let go when nobody needs them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use stepwell_model::VertexId;
use stepwell_steps::source::{Owners, SourceTree};
use stepwell_store::{ChainView, Ids, ReadCheckout, Store, StoreError};

use crate::error::StepError;
use crate::session::{Layers, Session, lock};

/// The stages that are open.
pub struct Stages<'a>(Mutex<HashMap<VertexId, Arc<Stage>>>, &'a Store);

/// A stage that files are copied from.
pub struct Stage(ReadCheckout, Arc<ChainView>);

impl<'a> Stages<'a> {
    /// None yet.
    pub fn new(store: &'a Store) -> Self {
        Self(Mutex::default(), store)
    }

    /// Opens the files of `vertex`.
    pub fn open(
        &self,
        vertex: VertexId,
        layers: &Layers,
        session: &Session<'_>,
    ) -> Result<Arc<Stage>, StepError> {
        // Held while unpacking: two copies from one stage would unpack it twice.
        let mut open = lock(&self.0);
        if let Some(stage) = open.get(&vertex) {
            return Ok(stage.clone());
        }
        session
            .images
            .fetch(layers, session, crate::session::step_id(vertex))?;
        let checkout = self
            .1
            .checkout_read(layers, &session.unpacking(crate::session::step_id(vertex)))?;
        let stage = Arc::new(Stage(checkout, Arc::new(self.1.chain_view(layers)?)));
        open.insert(vertex, stage.clone());
        Ok(stage)
    }

    /// Lets go of a stage.
    pub fn release(&self, vertex: VertexId) {
        lock(&self.0).remove(&vertex);
    }
}

impl Stage {
    /// Returns what COPY sees of it: what the layers have, and not what a sandbox left in `/proc`, `/dev` and `/sys`.
    pub fn tree(&self) -> Result<SourceTree, StoreError> {
        let owners = match self.0.ids() {
            Ids::Emulated => Owners::Emulated(self.0.side_table()),
            Ids::Real => Owners::Real,
        };
        Ok(SourceTree::checkout(self.0.root_fd()?, owners).showing(self.1.clone()))
    }
}
