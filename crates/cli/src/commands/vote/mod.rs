//! `tastemaker vote`: a page to vote on, and what votes come to.

mod export;
mod results;
mod what;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tastemaker_math::number;
use tastemaker_web::WebError;
use tastemaker_web::results::import;
use tastemaker_web::server::{Certificate, Server};
use tastemaker_web::study::{Study, StudySettings, gold};
use tastemaker_web::vote::{Access, Booth, Database, router, voter_names};

use crate::exit::UsageError;
use crate::next;
use crate::pairs::{self, Part, ReadingFlags};
use crate::progress::{Work, counted};
use crate::scoring::report;
use crate::signals::Signals;

/// Shows pairs of images to people, blind, and keeps their votes in a database.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case", args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct VoteArgs {
    #[command(subcommand)]
    command: Option<VoteCommand>,
    /// The output folder of compare; two or more folders of images from anywhere; or a set of pairs, to be labeled or labeled anew
    #[arg(value_name = "[NAME=]DIR|SET", required = true)]
    what: Vec<String>,
    /// Database of the votes; an existing one is continued
    #[arg(long, value_name = "FILE", required = true)]
    db: Option<PathBuf>,
    /// Prompts that names of images count in: small (built in), demo, demo:TASK, or a file or folder of prompts [default: those of
    /// the comparison]
    #[arg(long, value_name = "NAME|FILE|DIR")]
    prompts: Option<String>,
    /// What is asked about each pair: general, appeal, alignment, or names in --wording
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "general")]
    questions: Vec<String>,
    /// TOML file with the words of questions: a table questions of NAME = "WORDS" [default: the words of the papers]
    #[arg(long, value_name = "FILE")]
    wording: Option<PathBuf>,
    /// Votes that each pair gets for each question [default: one of each voter, at most 5]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    votes_per_item: Option<u32>,
    /// Who votes
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',', default_value = "me")]
    voters: Vec<String>,
    /// Let nobody vote without a link, also on this machine
    #[arg(long)]
    invite: bool,
    /// Fraction of pairs that come to a voter twice, to measure how consistent the voter is
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    repeats: f64,
    /// Labeled pairs that are mixed in, to measure how often a voter finds the known answer [default: none]
    #[arg(long, value_name = "SET")]
    gold: Option<String>,
    /// Report voters who find fewer known answers than this; none is dropped
    #[arg(long, value_name = "FRACTION", default_value_t = 0.8)]
    gold_threshold: f64,
    /// Seed of orders and sides
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Votes of another database to begin with, as `vote export --to votes` writes them [default: none]
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    #[command(flatten)]
    reading: ReadingFlags,
    #[command(flatten)]
    serving: ServingFlags,
}

/// How a page is served.
#[derive(Debug, Args)]
#[command(next_help_heading = "Serving", rename_all = "snake_case")]
pub struct ServingFlags {
    /// Address to listen on; voters on other machines need their links, and --tls_cert for privacy
    #[arg(long, value_name = "ADDRESS:PORT", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7007))]
    bind: SocketAddr,
    /// Name that browsers reach this machine by; repeat for several [default: addresses only]
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Certificate for TLS, in PEM [default: no TLS]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl ServingFlags {
    /// Listens.
    ///
    /// # Errors
    /// Those of [`Server::bind`].
    pub fn open(&self) -> Result<Server> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let certificate = files.map(|(certificate, key)| Certificate { certificate, key });
        Ok(Server::bind(self.bind, certificate.as_ref(), self.host.clone())?)
    }
}

/// What to do with votes.
#[derive(Debug, Subcommand)]
pub enum VoteCommand {
    /// Say what the votes come to, also while people vote.
    Results(results::ResultsArgs),
    /// Write the votes as pairs to train on, rankings, scores, or votes.
    Export(Box<export::ExportArgs>),
}

/// Runs the command.
pub fn vote(args: VoteArgs) -> Result<()> {
    match &args.command {
        Some(VoteCommand::Results(args)) => results::results(args),
        Some(VoteCommand::Export(args)) => export::export(args),
        None => serve(&args),
    }
}

fn serve(args: &VoteArgs) -> Result<()> {
    let voters = voter_names(&args.voters)?;
    let settings = settings(args, &voters)?;
    let whole = study(args)?;
    let study = readable(whole.clone())?;
    let server = args.serving.open()?;
    let access = if args.invite || !server.is_local() { Access::Invited } else { Access::Open };
    let db = args.db.as_deref().context("clap asks for --db")?;
    let (study, mut database) = match Database::open(db, &study, &settings) {
        // Images that broke since people began to vote do not make it another study.
        Err(WebError::OtherStudy { .. }) if study.items.len() < whole.items.len() => {
            let database = Database::open(db, &whole, &settings)?;
            (whole, database)
        }
        opened => (study, opened?),
    };
    if let Some(file) = &args.import {
        let n = import(file, &mut database, &study, &settings)?;
        println!("imported {}", counted(n as u64, "vote"));
    }
    let n_items = study.items.iter().filter(|item| item.known.is_none()).count();
    let (n_questions, each) = (settings.questions.len(), settings.votes_per_item);
    let compared: BTreeSet<u32> =
        study.items.iter().filter(|item| item.known.is_none()).flat_map(|item| item.models).collect();
    println!(
        "{}: {} of {}, {}, {} each",
        study.name,
        counted(n_items as u64, "pair"),
        counted(compared.len() as u64, "model"),
        counted(n_questions as u64, "question"),
        counted(u64::from(each), "vote")
    );
    let booth = Booth::open(database, study, settings, &voters)?;
    if booth.voters().len() < each as usize {
        let n = booth.voters().len();
        eprintln!(
            "note: {} for {each} votes of each pair; name more in --voters",
            counted(n as u64, "voter")
        );
    }
    announce(&server, &booth, access);
    let signals = Signals::listen()?;
    let is_secure = server.is_secure();
    server.run(router(booth, access, is_secure), || signals.came().is_some())?;
    next::say(&["tastemaker", "vote", "results", "--db", &next::word(db)]);
    Ok(())
}

fn settings(args: &VoteArgs, voters: &[String]) -> Result<StudySettings> {
    for (flag, value) in [("repeats", args.repeats), ("gold_threshold", args.gold_threshold)] {
        if !(0.0..=1.0).contains(&value) {
            return Err(
                UsageError(format!("--{flag} is {}; wanted a fraction from 0 to 1", number(value))).into()
            );
        }
    }
    let each = args.votes_per_item.unwrap_or((voters.len() as u32).min(5));
    let mut settings = StudySettings {
        votes_per_item: each,
        repeats: args.repeats,
        gold_threshold: args.gold_threshold,
        seed: args.seed,
        ..StudySettings::default()
    };
    let wording = args.wording.as_ref().map(tastemaker_store::json::read_text).transpose()?;
    settings.ask(&args.questions, wording.as_deref())?;
    Ok(settings)
}

fn study(args: &VoteArgs) -> Result<Study> {
    let study = what::study(&args.what, args.prompts.as_deref(), &args.reading.settings()?)?;
    let Some(name) = &args.gold else { return Ok(study) };
    let set = pairs::open(name, Part::default(), &args.reading.settings()?)?;
    pairs::report_skipped(&set);
    Ok(study.with_gold(gold(name, Arc::new(set))?))
}

/// Images that are decoded before the page opens. Of more, one that does not decode is noticed by whoever is shown it, and skips it.
const DECODED_FIRST: usize = 256;

/// The study without pairs of which an image does not decode; what is skipped is printed.
fn readable(study: Study) -> Result<Study> {
    if study.images.len() > DECODED_FIRST {
        return Ok(study);
    }
    let mut work = Work::new("reading", "images");
    let unreadable = study.unreadable(&mut |done, of| work.at(done as u64, of as u64));
    work.end();
    let study = study.without(&unreadable?)?;
    report(&counted(study.skipped.len() as u64, "image"), &study.skipped);
    Ok(study)
}

/// Says where to vote, and what is not private.
fn announce(server: &Server, booth: &Booth, access: Access) {
    let url = server.url();
    match access {
        Access::Open => println!("vote at {url}"),
        Access::Invited => {
            for voter in booth.voters() {
                println!("{}: {url}/invite/{}", voter.name, voter.secret);
            }
        }
    }
    if !server.is_local() && !server.is_secure() {
        eprintln!(
            "warning: links, prompts and images go over the network unencrypted, and whoever listens can vote with the links; \
             --tls_cert and --tls_key encrypt them"
        );
    }
    println!(
        "every vote is on disk before the next pair is shown; Ctrl-C ends, and the same command continues"
    );
}
