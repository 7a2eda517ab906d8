//! Group commit of writes to outbound messages: writes that arrive while another one runs share the next transaction. Each
//! write is durable on return. Rows change in the order of their ids, so that two sidecars do not wait for each other.

use super::{ADD, OutboundMessage};
use crate::{
    database::{Bind, Database, Durability, Transaction},
    error::StoreError,
    group::Group,
    idempotency::{self, CompletedRequest},
    media,
};
use twilio_edge_platform::tasks::Supervisor;

/// One write.
#[derive(Debug, Clone)]
enum Write {
    /// A new message, and with it the stored response of its idempotency key. Both are written, or neither.
    Add { message: Box<OutboundMessage>, done: Option<Box<CompletedRequest>> },
    /// A statement about one message, whose id is the first value. `instead` is the fallback message to insert if the
    /// statement changes the row.
    Change { statement: &'static str, values: Vec<Value>, instead: Option<Box<OutboundMessage>> },
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    Whole(i64),
}

/// Handle of the group commit. Each write returns the number of changed rows.
#[derive(Clone)]
pub(super) struct Writes(Group<Write, u64>);

impl Writes {
    pub(super) fn start(database: Database, tasks: &Supervisor) -> Writes {
        Writes(Group::start(tasks, database.timeout(), move |writes: Vec<Write>, _| {
            let database = database.clone();
            async move { database.within_timeout(write_all(&database, writes)).await }
        }))
    }

    pub(super) async fn add(
        &self,
        message: &OutboundMessage,
        done: Option<&CompletedRequest>,
    ) -> Result<(), StoreError> {
        let (message, done) = (Box::new(message.clone()), done.cloned().map(Box::new));
        self.0.ask(vec![Write::Add { message, done }], 0).await.map(|_| ())
    }

    pub(super) async fn change(
        &self,
        statement: &'static str,
        values: &[Bind<'_>],
    ) -> Result<u64, StoreError> {
        self.change_with(statement, values, None).await
    }

    /// Executes a statement like `change`, and inserts the fallback message `instead` if it changed the row.
    pub(super) async fn change_with(
        &self,
        statement: &'static str,
        values: &[Bind<'_>],
        instead: Option<&OutboundMessage>,
    ) -> Result<u64, StoreError> {
        let instead = instead.map(|message| Box::new(message.clone()));
        let values = values.iter().map(|value| match value {
            Bind::Text(text) => Value::Text((*text).to_owned()),
            Bind::Whole(number) => Value::Whole(*number),
        });
        let change = Write::Change { statement, values: values.collect(), instead };
        self.0.ask(vec![change], 0).await.map(|rows| rows.first().copied().unwrap_or_default())
    }
}

async fn write_all(database: &Database, writes: Vec<Write>) -> Result<Vec<u64>, StoreError> {
    let mut written = vec![0; writes.len()];
    let mut writes: Vec<(usize, Write)> = writes.into_iter().enumerate().collect();
    // Writes to the same message keep their order.
    writes.sort_by(|(_, one), (_, other)| one.id().cmp(other.id()));
    let mut tx = database.begin(Durability::Power).await?;
    for (place, write) in &writes {
        let rows = write.execute(&mut tx).await?;
        if let Some(slot) = written.get_mut(*place) {
            *slot = rows;
        }
    }
    // Media come last because messages may share them; their rows also change in the order of their ids.
    let added = writes.iter().filter_map(|(_, write)| match write {
        Write::Add { message, .. } => Some(&**message),
        Write::Change { .. } => None,
    });
    media::record_uses(&mut tx, added).await?;
    tx.commit().await?;
    Ok(written)
}

impl Write {
    fn id(&self) -> &str {
        match self {
            Write::Add { message, .. } => &message.id,
            Write::Change { values, .. } => match values.first() {
                Some(Value::Text(id)) => id,
                _ => "",
            },
        }
    }

    async fn execute(&self, tx: &mut Transaction) -> Result<u64, StoreError> {
        match self {
            Write::Add { message, done } => {
                let rows = tx.execute_bound(&ADD, &message.values()).await?;
                if let Some(done) = done {
                    idempotency::finish(tx, done).await?;
                }
                Ok(rows)
            }
            Write::Change { statement, values, instead } => {
                let values: Vec<Bind<'_>> = values
                    .iter()
                    .map(|value| match value {
                        Value::Text(text) => Bind::Text(text),
                        Value::Whole(number) => Bind::Whole(*number),
                    })
                    .collect();
                let rows = tx.execute_bound(statement, &values).await?;
                if let Some(message) = instead.as_ref().filter(|_| rows == 1) {
                    tx.execute_bound(&ADD, &message.values()).await?;
                }
                Ok(rows)
            }
        }
    }
}
