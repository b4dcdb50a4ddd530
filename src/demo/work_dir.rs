//! The demo's directory: ClickHouse's data, its settings and passwords, and its log.

use super::mark::Mark;
use super::program::Program;
use crate::clickhouse::users::{Account, Default, From};
use crate::private;
use crate::secrets::Secrets;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Files in it that ClickHouse is given.
pub const SETTINGS: &str = "clickhouse.xml";
pub const QUERIES: &str = "clickhouse.sql";

/// The directory of one demo, which only its user may read.
pub struct WorkDir {
    pub path: PathBuf,
    pub kept: bool,
    pub http_port: u16,
    _lock: File,
}

/// The server serves for as long as the library's last query runs: this one takes ten years. An installed one needs none.
const SERVE: &str = "SYSTEM START LISTEN HTTP;
SELECT sleepEachRow(3) FROM numbers(100000000)
SETTINGS function_sleep_max_microseconds_per_block = 100000000000, max_block_size = 1 FORMAT Null;
";

impl WorkDir {
    /// Makes or takes the directory, and writes ClickHouse's settings.
    ///
    /// # Errors
    /// When it cannot be written, or another demo uses it.
    pub fn open(data_dir: Option<&Path>) -> Result<Self> {
        let path = data_dir.map_or_else(temporary, Path::to_owned);
        let path = directory(&path).with_context(|| format!("--data-dir {}", path.display()))?;
        let lock = private::file().write(true).create(true).open(path.join("lock"));
        let lock = lock.with_context(|| format!("cannot write in {}", path.display()))?;
        if lock.try_lock().is_err() {
            bail!("--data-dir {} is in use by another demo: stop it, or choose another directory", path.display());
        }
        let http_port = free_port()?;
        let work_dir = Self { path, kept: data_dir.is_some(), http_port, _lock: lock };
        work_dir.write(SETTINGS, &work_dir.settings())?;
        work_dir.write(QUERIES, SERVE)?;
        Ok(work_dir)
    }

    /// Makes the passwords for this ClickHouse, and the mark by which our own processes know the directory. Returns its token.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn furnish(&self, program: &Program) -> Result<String> {
        let default = match program {
            Program::Installed(_) => Default::Nobody,
            Program::Library(_) => Default::Library,
        };
        self.secrets().provide(From::Loopback, default)?;
        let mark = Mark::new(!self.kept, program.clone());
        mark.write(&self.path)?;
        Ok(mark.token)
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The file with the password of a user.
    pub fn password(&self, account: &Account) -> PathBuf {
        self.secrets().password(account)
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(self.file("secrets"), 0o600)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let file = self.file(name);
        let written = private::file().write(true).create(true).truncate(true).open(&file);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    fn settings(&self) -> String {
        let xml = |path: &Path| path.display().to_string().replace('&', "&amp;").replace('<', "&lt;");
        let (path, users) = (xml(&self.path), xml(&self.secrets().users()));
        let http = self.http_port;
        format!(
            "<clickhouse>
  <logger><console>1</console><level>warning</level></logger>
  <path>{path}/clickhouse/</path>
  <listen_host>127.0.0.1</listen_host>
  <!-- the only port: over ClickHouse's own protocol, the bound on sessions in users.xml ends the whole server (26.7) -->
  <http_port>{http}</http_port>
  <!-- a server's merges; the library by default has 2 threads for each, and warns of it several times a second -->
  <background_pool_size>16</background_pool_size>
  <background_schedule_pool_size>16</background_schedule_pool_size>
  <!-- by default 5 GB each -->
  <mark_cache_size>134217728</mark_cache_size>
  <index_mark_cache_size>67108864</index_mark_cache_size>
  <primary_index_cache_size>67108864</primary_index_cache_size>
  <!-- a server looks here, the library there -->
  <user_directories><users_xml><path>{users}</path></users_xml></user_directories>
  <users_config>{users}</users_config>
</clickhouse>
"
        )
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if !self.kept {
            // The guard has done it already, where there was one.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Creates the directory, or takes an existing one of this user alone. Links in its path are followed.
fn directory(path: &Path) -> Result<PathBuf> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    private::directory(&path)?;
    Ok(path.canonicalize()?)
}

fn temporary() -> PathBuf {
    std::env::temp_dir().join(format!("clickstream-demo-{}", uuid::Uuid::new_v4().simple()))
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}
