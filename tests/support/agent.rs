//! SSH agents: real ones, and ones that misbehave at an exact point.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `ssh-agent`; dropping it kills it.
pub(crate) struct Agent {
    folder: tempfile::TempDir,
    child: Child,
}

impl Agent {
    /// Starts one that holds nothing.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("ssh-agent");
        // Whoever is to consent to a use does not.
        command.env_remove("DISPLAY").env("SSH_ASKPASS", "/bin/false").env("SSH_ASKPASS_REQUIRE", "force");
        command.arg("-D").arg("-a").arg(folder.path().join("agent")).stdout(Stdio::piped());
        let mut child = command.spawn().expect("`ssh-agent` is installed");
        let mut line = String::new();
        // It listens when it says where.
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("SSH_AUTH_SOCK"), "{line}");
        Self { folder, child }
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent")
    }

    /// Has `ssh-add` do what `words` say.
    pub(crate) fn add(&self, words: &[&str]) {
        let mut command = Command::new("ssh-add");
        let output = command.args(words).env("SSH_AUTH_SOCK", self.socket()).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "ssh-add {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Adds the key in the file `path`, and the certificate beside it.
    pub(crate) fn hold(&self, path: &Path) {
        self.add(&["-q", path.to_str().unwrap()]);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What an agent that is none does with whoever asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Odd {
    /// Takes the question and never answers.
    Silent,
    /// Takes the question and hangs up.
    HangsUp,
    /// Answers as a web server would.
    Garbled,
    /// Announces four gigabytes.
    Endless,
}

/// Starts one, which lasts as long as the test; it listens at `path` when this returns.
pub(crate) fn odd(path: &Path, odd: Odd) {
    serve(path, odd, None);
}

/// The same, which tells first what the agent at `real` holds.
pub(crate) fn odd_after_listing(path: &Path, odd: Odd, real: PathBuf) {
    serve(path, odd, Some(real));
}

fn serve(path: &Path, odd: Odd, real: Option<PathBuf>) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut question = [0; 5];
            let _ = stream.read_exact(&mut question);
            if let (Some(real), LIST) = (&real, question[4]) {
                let _ = stream.write_all(&listing(real));
                continue;
            }
            match odd {
                Odd::HangsUp => {}
                Odd::Silent => kept.push(stream),
                Odd::Garbled => {
                    let _ = stream.write_all(b"\0\0\0\x11HTTP/1.1 400 Bad ");
                    kept.push(stream);
                }
                Odd::Endless => {
                    let _ = stream.write_all(&[0xff; 64]);
                    kept.push(stream);
                }
            }
        }
    });
}

/// The number of the question what an agent holds.
const LIST: u8 = 11;

/// What the agent at `real` answers to it.
fn listing(real: &Path) -> Vec<u8> {
    let mut stream = UnixStream::connect(real).unwrap();
    stream.write_all(&[0, 0, 0, 1, LIST]).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut reply).unwrap();
    [&length[..], &reply].concat()
}
