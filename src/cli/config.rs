#[derive(Debug, clap::Args)]
pub(super) struct Args {}
pub(super) fn run(_: &Args, _: &mut dyn std::io::Write) -> anyhow::Result<()> {
    Ok(())
}
