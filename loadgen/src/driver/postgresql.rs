//! PostgreSQL: a mix of select, insert, update and delete by key, as prepared statements; one
//! connection for each request in flight.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    time::Duration,
};

use aifb_schema::recipe::SqlMix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_postgres::{Client, Config, NoTls, Statement, tls::NoTlsStream};

use super::Driver;
use crate::{
    error::Fatal,
    fault::{Class, Fault},
    job::Job,
    plan::Ask,
    record::row::Seen,
    wire::{
        driven::{Driven, chain},
        resolve,
        socket::Socket,
    },
};

/// Longest time to make and fill the table, and for other ranks to wait for it: a hundred million
/// rows take some minutes.
const SETUP_MAX: Duration = Duration::from_secs(600);

/// Time between two looks for the table.
const SETUP_LOOK: Duration = Duration::from_millis(50);

/// Comment that marks a table as ours, so that no other data is dropped.
const MARK: &str = "made by aifb-loadgen";

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Select,
    Insert,
    Update,
    Delete,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Select => "select",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

/// The driver.
pub(crate) struct Postgresql {
    targets: Vec<SocketAddr>,
    config: Config,
    table: Table,
    mix: SqlMix,
    seed: u64,
    rank: u64,
    size: u64,
    inserts: Cell<u64>,
    /// Keys that this worker inserted and has not deleted.
    own: RefCell<VecDeque<i64>>,
}

/// The table and its first rows.
struct Table {
    /// As it stands in statements, quoted.
    name: String,
    rows: u64,
}

/// A connection with its statements.
pub(crate) struct Link {
    socket: Socket,
    driven: Driven<tokio_postgres::Connection<Socket, NoTlsStream>>,
    client: Client,
    statements: Option<Statements>,
}

struct Statements {
    select: Statement,
    insert: Statement,
    update: Statement,
    delete: Statement,
}

impl Driver for Postgresql {
    type Connection = Link;

    async fn prepare(job: &Job) -> Result<Self, Fatal> {
        let load = &job.plan.load;
        let wanted = load.postgresql.clone().unwrap_or_default();
        let mut targets = Vec::new();
        for endpoint in &job.plan.endpoints {
            targets.push(resolve::address(&endpoint.host, endpoint.port).await?);
        }
        if targets.is_empty() {
            return Err(Fatal::usage(format!("load '{}': its service has no endpoint", load.name)));
        }
        let mut config = Config::new();
        config.user(&wanted.user).dbname(&wanted.database).application_name("aifb-loadgen");
        if let Some(password) = job.plan.secrets.get("POSTGRES_PASSWORD") {
            config.password(password);
        }
        let driver = Self {
            targets,
            config,
            table: Table { name: quoted(&wanted.table), rows: wanted.rows.max(1) },
            mix: wanted.mix,
            seed: load.seed,
            rank: u64::from(job.rank),
            size: u64::from(job.plan.size.max(1)),
            inserts: Cell::new(0),
            own: RefCell::default(),
        };
        for target in 0..driver.targets.len() {
            let setup = driver.set_up(target, job.rank == 0);
            tokio::time::timeout(SETUP_MAX, setup).await.map_err(|_| {
                Fatal::service(format!(
                    "load '{}': table {} was not ready within {SETUP_MAX:?}",
                    load.name, driver.table.name
                ))
            })??;
        }
        Ok(driver)
    }

    fn targets(&self) -> usize {
        self.targets.len()
    }

    async fn connect(&self, target: usize) -> Result<Link, Fault> {
        let mut link = self.open(target).await?;
        link.prepare(&self.table.name).await?;
        Ok(link)
    }

    fn usable(&self, link: &Link) -> bool {
        link.driven.alive() && !link.client.is_closed() && link.socket.is_idle()
    }

    fn operation(&self, ask: Ask) -> &'static str {
        self.draw(ask).0.as_str()
    }

    async fn operate(&self, link: &mut Link, ask: Ask, seen: &mut Seen) -> Result<(), Fault> {
        let (operation, key) = self.draw(ask);
        link.socket.begin();
        let result = self.statement(link, operation, key).await;
        seen.items = result.as_ref().ok().copied();
        link.socket.note(seen);
        if seen.first_byte_ns.is_some() {
            seen.end_ns = Some(link.socket.last_read_ns());
        }
        result.map(drop)
    }
}

impl Postgresql {
    /// What a request does, from the seed.
    fn draw(&self, ask: Ask) -> (Operation, i64) {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(5);
        random.set_word_pos(u128::from(ask.key()) * 16);
        let SqlMix { select, insert, update, delete } = self.mix;
        let at = random.random::<f64>() * (select + insert + update + delete);
        let operation = if at < select {
            Operation::Select
        } else if at < select + insert {
            Operation::Insert
        } else if at < select + insert + update {
            Operation::Update
        } else {
            Operation::Delete
        };
        let key = random.random_range(1..=self.table.rows);
        (operation, i64::try_from(key).unwrap_or(i64::MAX))
    }

    /// Runs a statement; gives the rows that it read or changed.
    async fn statement(&self, link: &mut Link, what: Operation, key: i64) -> Result<u64, Fault> {
        let Link { driven, client, statements, .. } = link;
        let Some(statements) = statements else {
            return Err(Fault::new(Class::Sql, "the statements were not prepared"));
        };
        let value = format!("value {key}");
        let result = match what {
            Operation::Select => {
                let found = driven.run(client.query_opt(&statements.select, &[&key])).await;
                found.map(|row| u64::from(row.is_some()))
            }
            Operation::Insert => {
                let number = self.inserts.get();
                self.inserts.set(number + 1);
                // Above the first rows, and different in each worker.
                let key = self.table.rows + 1 + number * self.size + self.rank;
                let key = i64::try_from(key).unwrap_or(i64::MAX);
                let done = driven.run(client.execute(&statements.insert, &[&key, &value])).await;
                if done.is_ok() {
                    self.own.borrow_mut().push_back(key);
                }
                done
            }
            Operation::Update => {
                driven.run(client.execute(&statements.update, &[&key, &value])).await
            }
            Operation::Delete => {
                // What was inserted before, so that the table keeps its size.
                let key = self.own.borrow_mut().pop_front().unwrap_or(key);
                driven.run(client.execute(&statements.delete, &[&key])).await
            }
        };
        result.map_err(|error| link.fault(&error))
    }

    async fn open(&self, target: usize) -> Result<Link, Fault> {
        let Some(address) = self.targets.get(target) else {
            return Err(Fault::new(Class::ConnectFailed, "no such endpoint"));
        };
        let socket = Socket::connect(*address).await?;
        let (client, connection) = self
            .config
            .connect_raw(socket.clone(), NoTls)
            .await
            .map_err(|error| Fault::new(Class::ConnectFailed, chain(&error)))?;
        let driven = Driven::new(connection, socket.clone());
        Ok(Link { socket, driven, client, statements: None })
    }

    /// Makes the table, or waits for it.
    async fn set_up(&self, target: usize, leads: bool) -> Result<(), Fatal> {
        let name = &self.table.name;
        let mut link = self.open(target).await.map_err(|fault| {
            Fatal::service(format!("connecting to PostgreSQL: {}", fault.message))
                .hint("the password is POSTGRES_PASSWORD in the service's env; user and database stand under the load's postgresql")
        })?;
        let fail = |fault: Fault| {
            Fatal::service(format!("creating table {name}: {}", fault.message))
                .hint("the user needs the privilege to create tables in the database")
        };
        loop {
            let found = link.table_state(name).await.map_err(fail)?;
            match (leads, found) {
                (true, TableState::Foreign) => {
                    return Err(Fatal::usage(format!(
                        "table {name} exists and was not made by aifb"
                    ))
                    .hint("choose another name under postgresql: table, or drop it yourself"));
                }
                (true, _) => {
                    return link.make_table(name, self.table.rows).await.map_err(fail);
                }
                (false, TableState::Ours) => return Ok(()),
                (false, _) => tokio::time::sleep(SETUP_LOOK).await,
            }
        }
    }
}

/// What stands under a table's name.
enum TableState {
    Missing,
    Ours,
    Foreign,
}

impl Link {
    fn fault(&self, error: &tokio_postgres::Error) -> Fault {
        if let Some(error) = error.as_db_error() {
            return Fault::new(Class::Sql, format!("{} {}", error.code().code(), error.message()));
        }
        let reason = self.driven.ended().map_or_else(|| chain(error), str::to_owned);
        let class = if self.socket.answered() {
            Class::TruncatedStream
        } else {
            Class::ResetBeforeResponse
        };
        Fault::new(class, reason)
    }

    async fn prepare(&mut self, table: &str) -> Result<(), Fault> {
        let texts = [
            format!("SELECT value FROM {table} WHERE id = $1"),
            format!("INSERT INTO {table} (id, value) VALUES ($1, $2)"),
            format!("UPDATE {table} SET value = $2 WHERE id = $1"),
            format!("DELETE FROM {table} WHERE id = $1"),
        ];
        let mut prepared = Vec::new();
        for text in &texts {
            let statement = self.driven.run(self.client.prepare(text)).await;
            prepared.push(statement.map_err(|error| self.fault(&error))?);
        }
        if let Ok([select, insert, update, delete]) = <[Statement; 4]>::try_from(prepared) {
            self.statements = Some(Statements { select, insert, update, delete });
        }
        Ok(())
    }

    async fn table_state(&mut self, table: &str) -> Result<TableState, Fault> {
        let text =
            "SELECT to_regclass($1) IS NOT NULL, obj_description(to_regclass($1), 'pg_class')";
        let row = self.driven.run(self.client.query_one(text, &[&table])).await;
        let row = row.map_err(|error| self.fault(&error))?;
        let (exists, comment): (bool, Option<String>) = (row.get(0), row.get(1));
        Ok(match (exists, comment.as_deref()) {
            (false, _) => TableState::Missing,
            (true, Some(MARK)) => TableState::Ours,
            (true, _) => TableState::Foreign,
        })
    }

    /// In one transaction, so that the other ranks see the whole table or none.
    async fn make_table(&mut self, table: &str, rows: u64) -> Result<(), Fault> {
        let text = format!(
            "BEGIN; DROP TABLE IF EXISTS {table}; \
             CREATE TABLE {table} (id bigint PRIMARY KEY, value text NOT NULL); \
             INSERT INTO {table} SELECT id, 'value ' || id FROM generate_series(1, {rows}) AS id; \
             COMMENT ON TABLE {table} IS '{MARK}'; COMMIT; ANALYZE {table}"
        );
        let made = self.driven.run(self.client.batch_execute(&text)).await;
        made.map_err(|error| self.fault(&error))
    }
}

/// A table's name, with or without schema, as an identifier.
fn quoted(name: &str) -> String {
    let parts: Vec<String> =
        name.splitn(2, '.').map(|part| format!("\"{}\"", part.replace('"', "\"\""))).collect();
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Phase;

    fn driver(mix: SqlMix) -> Postgresql {
        Postgresql {
            targets: Vec::new(),
            config: Config::new(),
            table: Table { name: quoted("t"), rows: 1_000 },
            mix,
            seed: 42,
            rank: 1,
            size: 3,
            inserts: Cell::new(0),
            own: RefCell::default(),
        }
    }

    #[test]
    fn the_mix_is_met_and_repeats_with_the_seed() {
        let driver = driver(SqlMix::default());
        let mut counts = std::collections::BTreeMap::new();
        for id in 0..20_000 {
            let ask = Ask::new(Phase::Measure, id);
            let (operation, key) = driver.draw(ask);
            assert_eq!((operation, key), driver.draw(ask));
            assert!((1..=1_000).contains(&key));
            *counts.entry(operation.as_str()).or_insert(0_i64) += 1;
        }
        for (word, expected) in
            [("select", 8_000), ("insert", 6_000), ("update", 4_000), ("delete", 2_000)]
        {
            assert!((counts[word] - expected).abs() < 300, "{word}: {counts:?}");
        }
        let only = self::driver(SqlMix { select: 1.0, insert: 0.0, update: 0.0, delete: 0.0 });
        assert!((0..500).all(|id| only.draw(Ask::new(Phase::Warmup, id)).0 == Operation::Select));
    }

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("aifb_load"), r#""aifb_load""#);
        assert_eq!(quoted("my.load"), r#""my"."load""#);
        assert_eq!(quoted("x\"; DROP TABLE y"), r#""x""; DROP TABLE y""#);
    }
}
