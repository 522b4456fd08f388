//! Every test of the store runs on both engines.

use palisade_store::{OpenStore, Store, StoreUrl};
use palisade_testkit::postgres::Postgres;

/// An empty database of one test's own.
pub(crate) enum Engine {
    Sqlite(tempfile::TempDir),
    Postgres { _server: Postgres, url: String },
}

impl Engine {
    pub(crate) fn sqlite() -> Option<Self> {
        Some(Self::Sqlite(tempfile::tempdir().unwrap()))
    }

    /// `None` where PostgreSQL is not installed, which is said.
    pub(crate) fn postgres() -> Option<Self> {
        let server = Postgres::start()?;
        Some(Self::Postgres { url: server.database(), _server: server })
    }

    pub(crate) fn url(&self) -> StoreUrl {
        match self {
            Self::Sqlite(folder) => StoreUrl::Sqlite(folder.path().join("palisade.db")),
            Self::Postgres { url, .. } => StoreUrl::Postgres(url.clone()),
        }
    }

    /// Opens the store; its tasks run until the last handle is dropped.
    pub(crate) async fn open(&self) -> Store {
        let OpenStore { store, tasks, notices } = Store::open(&self.url()).await.unwrap();
        for task in tasks {
            tokio::runtime::Handle::current().spawn(task);
        }
        // Listened to for as long as the process lives.
        std::mem::forget(notices);
        store
    }
}

macro_rules! on_both_engines {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::engines::Engine::sqlite().unwrap()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                if let Some(engine) = crate::engines::Engine::postgres() {
                    super::$test(engine).await;
                }
            })+
        }
    };
}
pub(crate) use on_both_engines;
