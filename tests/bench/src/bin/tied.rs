//! Runs a program that is killed as soon as its parent has ended, however that came about: `tied PARENT PROGRAM [ARG…]`.
//! PARENT is the process id of the parent.

use std::env;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let parent = arguments.next().ok_or("PARENT is missing")?;
    let program = arguments.next().ok_or("PROGRAM is missing")?;
    set_pdeathsig(Signal::SIGKILL)?; // stays in force over exec (prctl(2))
    // It may have ended before this process asked to be told.
    if parent.to_str() != Some(&getppid().to_string()) {
        return Err("the parent has ended already".into());
    }
    Err(Command::new(program).args(arguments).exec().into())
}
