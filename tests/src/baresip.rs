//! baresip: one SIP phone without a sound card, controlled over a socket. It plays a file once and hangs up at the end
//! of it, so it sends nothing after its BYE.

use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::netns::Namespace;
use crate::process::{Process, Scratch};

/// Where Debian keeps its modules.
const MODULES: &str = "/usr/lib/baresip/modules";
/// Where it is controlled, inside its namespace.
const CONTROL_PORT: u16 = 4444;
/// Narrowband, as G.711 has it.
const SAMPLES_PER_SECOND: u32 = 8000;

/// How to set up a phone.
#[derive(Clone, Debug)]
pub struct Phone<'a> {
    /// Its name: `sip:<user>@…`.
    pub user: &'a str,
    /// The interface it uses.
    pub interface: &'a str,
    /// Its address there.
    pub ip: IpAddr,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'a str,
    /// Where all its requests go first.
    pub outbound: Option<SocketAddr>,
    /// The authority it trusts (TLS).
    pub authority: Option<&'a Path>,
    /// How long its audio is.
    pub audio: Duration,
    /// Its own SIP port (for TLS it takes the next one).
    pub sip_port: u16,
}

/// A running phone.
#[derive(Debug)]
pub struct Baresip {
    process: Process,
    control: Mutex<Control>,
}

#[derive(Debug)]
struct Control {
    stream: BufReader<TcpStream>,
    /// Types of the events seen so far.
    events: Vec<String>,
}

impl Baresip {
    /// Starts it; incoming calls are answered at once.
    pub fn start(namespace: &Namespace, phone: &Phone<'_>, scratch: &Scratch) -> Result<Self> {
        let name = format!("baresip-{}", phone.user);
        let folder = scratch.path().join(&name);
        std::fs::create_dir_all(&folder)?;
        let audio = folder.join("audio.wav");
        std::fs::write(&audio, tone(phone.audio)).context("cannot write the audio")?;
        std::fs::write(folder.join("config"), config(phone, &audio))?;
        let outbound = phone
            .outbound
            .map_or(String::new(), |to| format!(";outbound=\"sip:{to};transport={}\"", phone.transport));
        let account = format!(
            "<sip:{}@{};transport={}>;regint=0;answermode=auto;audio_codecs=PCMA/8000/1{outbound}\n",
            phone.user, phone.ip, phone.transport
        );
        std::fs::write(folder.join("accounts"), account)?;
        std::fs::write(folder.join("contacts"), "")?;
        let mut command = namespace.command("baresip");
        command.arg("-f").arg(&folder);
        let process = Process::spawn(&name, &mut command, scratch)?;
        process.wait_until("ready", Duration::from_secs(10), |p| p.log().contains("baresip is ready"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], CONTROL_PORT));
        let stream = namespace.enter(|| TcpStream::connect(address))?.context("cannot control baresip")?;
        let control = Mutex::new(Control { stream: BufReader::new(stream), events: Vec::new() });
        Ok(Self { process, control })
    }

    /// Calls `uri`.
    pub fn dial(&self, uri: &str) -> Result<()> {
        self.command("dial", uri)
    }

    /// Ends the current call.
    pub fn hang_up(&self) -> Result<()> {
        self.command("hangup", "")
    }

    /// Puts the current call on hold.
    pub fn hold(&self) -> Result<()> {
        self.command("hold", "")
    }

    /// Takes the current call off hold.
    pub fn resume(&self) -> Result<()> {
        self.command("resume", "")
    }

    /// Waits until an event of this type was told: `CALL_ESTABLISHED`, `CALL_CLOSED`, …
    pub fn wait_for(&self, event: &str, limit: Duration) -> Result<()> {
        let began = Instant::now();
        let mut control = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while !control.events.iter().any(|seen| seen == event) {
            let left = limit.checked_sub(began.elapsed()).filter(|left| !left.is_zero());
            let Some(left) = left else {
                bail!(
                    "baresip: no {event} within {limit:?}, only {:?}:\n{}",
                    control.events,
                    self.process.log_tail()
                )
            };
            control.read(left)?;
        }
        Ok(())
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn command(&self, command: &str, params: &str) -> Result<()> {
        let message = json!({ "command": command, "params": params }).to_string();
        let mut control = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let netstring = format!("{}:{message},", message.len());
        control.stream.get_mut().write_all(netstring.as_bytes()).context("baresip does not listen")
    }
}

impl Control {
    /// Reads one netstring, or nothing within `limit`.
    fn read(&mut self, limit: Duration) -> Result<()> {
        self.stream.get_ref().set_read_timeout(Some(limit))?;
        let mut length = 0usize;
        loop {
            let mut byte = [0];
            match self.stream.read_exact(&mut byte) {
                Ok(()) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(());
                }
                Err(error) => return Err(error).context("baresip closed its control socket"),
            }
            match byte[0] {
                digit @ b'0'..=b'9' => length = length * 10 + usize::from(digit - b'0'),
                b':' => break,
                other => bail!("baresip sent no netstring: {other:#x}"),
            }
        }
        let mut message = vec![0; length + 1];
        self.stream.read_exact(&mut message)?;
        message.pop();
        let message: Value = serde_json::from_slice(&message).context("baresip sent no JSON")?;
        if message["event"] == json!(true) {
            self.events.extend(message["type"].as_str().map(str::to_owned));
        }
        Ok(())
    }
}

fn config(phone: &Phone<'_>, audio: &Path) -> String {
    let audio = audio.display();
    let (ip, interface, sip_port) = (phone.ip, phone.interface, phone.sip_port);
    let authority =
        phone.authority.map_or(String::new(), |path: &Path| format!("sip_cafile {}\n", path.display()));
    format!(
        "poll_method epoll\n\
         sip_listen {ip}:{sip_port}\n\
         {authority}\
         net_interface {interface}\n\
         call_local_timeout 30\n\
         call_max_calls 4\n\
         audio_player aubridge,sink\n\
         audio_source aufile,{audio}\n\
         audio_alert aubridge,alert\n\
         audio_srate {SAMPLES_PER_SECOND}\n\
         audio_channels 1\n\
         rtp_ports 30000-30200\n\
         rtcp_enable yes\n\
         module_path {MODULES}\n\
         module g711.so\n\
         module aufile.so\n\
         module aubridge.so\n\
         module_app account.so\n\
         module_app menu.so\n\
         module_app ctrl_tcp.so\n\
         ctrl_tcp_listen 127.0.0.1:{CONTROL_PORT}\n"
    )
}

/// A WAV file with a 400 Hz square wave: 16 bits, mono.
fn tone(length: Duration) -> Vec<u8> {
    let samples = u32::try_from(length.as_millis()).unwrap_or(u32::MAX / 16) * (SAMPLES_PER_SECOND / 1000);
    let bytes = samples * 2;
    let mut wav = Vec::new();
    wav.extend(b"RIFF");
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16u32.to_le_bytes());
    wav.extend([1u16, 1].map(u16::to_le_bytes).concat());
    wav.extend([SAMPLES_PER_SECOND, SAMPLES_PER_SECOND * 2].map(u32::to_le_bytes).concat());
    wav.extend([2u16, 16].map(u16::to_le_bytes).concat());
    wav.extend(b"data");
    wav.extend(bytes.to_le_bytes());
    wav.extend(
        (0..samples).flat_map(|sample| if sample / 10 % 2 == 0 { 3000i16 } else { -3000 }.to_le_bytes()),
    );
    wav
}
