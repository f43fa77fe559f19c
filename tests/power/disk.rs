//! A disk with a cache that it loses with its power, sector by sector.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use smsfleet::adapters::embedded::engine::disk::{Disk, Disks};
use smsfleet::adapters::system::SeededChance;
use smsfleet::ports::clock::Chance;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// A disk that lies does so for this many syncs in a row.
const STRETCH: u64 = 24;

/// The disk. It can be opened again and again; what it holds stays.
#[derive(Clone)]
pub struct PowerDisk {
    platter: Arc<Mutex<Platter>>,
    /// How often the power had come back when it was opened: whoever opened it before a cut is dead.
    life: Option<u64>,
}

struct Platter {
    life: u64,
    chance: SeededChance,
    /// What is there after a cut.
    durable: Vec<u8>,
    /// What is read while there is power.
    cached: Vec<u8>,
    /// All that each sector held since the last sync, oldest first: after a cut it holds one of them, or what it held before.
    written: BTreeMap<usize, Vec<Vec<u8>>>,
    /// All lengths that the file had since then.
    lengths: Vec<usize>,
    powered: bool,
    /// Writes and syncs until the power goes.
    left: Option<u64>,
    /// Of a thousand stretches of syncs in so many they only say that they were done.
    lies: u64,
    is_lying: bool,
    /// Whether nothing that was not synced ever survives.
    forgets: bool,
    told: Told,
}

/// What happened to the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    pub cuts: u64,
    pub syncs: u64,
    pub lies: u64,
    /// Sectors that came back as they were before, and as they were written last.
    pub lost: u64,
    pub kept: u64,
    /// Cuts after which some sectors were lost and some kept.
    pub torn: u64,
}

impl PowerDisk {
    /// An empty disk. Of a thousand stretches of its syncs so many are lies.
    pub fn new(seed: u64, lies: u64) -> PowerDisk {
        let platter = Platter {
            life: 0,
            chance: SeededChance::from_seed(seed),
            durable: vec![],
            cached: vec![],
            written: BTreeMap::new(),
            lengths: vec![],
            powered: true,
            left: None,
            lies,
            is_lying: false,
            forgets: false,
            told: Told::default(),
        };
        PowerDisk { platter: Arc::new(Mutex::new(platter)), life: None }
    }

    /// Such a disk, of which nothing that was not synced survives: the database is found as it was, at an earlier moment.
    pub fn forgetful(self) -> PowerDisk {
        self.platter().forgets = true;
        self
    }

    /// The disk as a process has it that starts now.
    pub fn opened(&self) -> PowerDisk {
        PowerDisk { platter: self.platter.clone(), life: Some(self.platter().life) }
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().expect("not poisoned")
    }

    /// The power will go in the middle of the n-th write, change of length or sync from now on.
    pub fn cut_after(&self, operations: u64) {
        self.platter().left = Some(operations);
    }

    /// The power stays from now on.
    pub fn stay_on(&self) {
        self.platter().left = None;
    }

    /// The power goes now.
    pub fn cut(&self) {
        self.platter().powered = false;
    }

    /// Whether there is power, and has been since it was opened.
    pub fn is_on(&self) -> bool {
        let platter = self.platter();
        platter.powered && self.life.is_none_or(|life| life == platter.life)
    }

    /// The platter, for an operation.
    fn working(&self) -> Result<MutexGuard<'_, Platter>> {
        let platter = self.platter();
        let dead = !platter.powered || self.life.is_some_and(|life| life != platter.life);
        if dead { Err(Error::other("the power is off")) } else { Ok(platter) }
    }

    /// The power comes back: what was not synced is there by sectors, each in one of its forms.
    pub fn restore(&self) {
        self.platter().restore();
    }

    /// What happened to it.
    pub fn told(&self) -> Told {
        self.platter().told
    }
}

impl Platter {
    fn restore(&mut self) {
        let draw = |of: u64| (self.chance.next() % of) as usize;
        // Nothing at all, everything, hardly anything missing, or any of it.
        let mood = if self.forgets { 0 } else { draw(4) };
        let mut lengths = std::mem::take(&mut self.lengths);
        lengths.insert(0, self.durable.len());
        let length = match mood {
            0 => lengths[0],
            1 => *lengths.last().expect("there is one"),
            _ => lengths[draw(lengths.len() as u64)],
        };
        self.durable.resize(length, 0);
        let (mut lost, mut kept) = (0, 0);
        for (sector, forms) in std::mem::take(&mut self.written) {
            let survives = match mood {
                0 => 0,
                1 => forms.len(),
                2 if draw(8) > 0 => forms.len(),
                _ => draw(forms.len() as u64 + 1),
            };
            let place = sector * SECTOR;
            if survives == 0 || place >= length {
                lost += 1;
                continue;
            }
            let bytes = &forms[survives - 1];
            let end = (place + bytes.len()).min(length);
            self.durable[place..end].copy_from_slice(&bytes[..end - place]);
            kept += 1;
        }
        let told = &mut self.told;
        (told.cuts, told.lost, told.kept) = (told.cuts + 1, told.lost + lost, told.kept + kept);
        told.torn += u64::from(lost > 0 && kept > 0);
        self.cached.clone_from(&self.durable);
        (self.powered, self.left) = (true, None);
        self.life += 1;
    }

    /// Counts an operation; false when the power goes while it is carried out.
    fn begin(&mut self) -> bool {
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.powered = self.left != Some(0);
        self.powered
    }
}

fn went() -> Error {
    Error::other("the power went")
}

impl Disks for PowerDisk {
    fn open(&self) -> Result<Box<dyn Disk>> {
        Ok(Box::new(self.opened()))
    }

    fn free_bytes(&self) -> u64 {
        u64::MAX
    }
}

impl std::fmt::Debug for PowerDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a disk that may lose its power")
    }
}

impl Disk for PowerDisk {
    fn length(&self) -> Result<u64> {
        Ok(self.working()?.cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let platter = self.working()?;
        let from = offset as usize;
        out.copy_from_slice(platter.cached.get(from..from + out.len()).ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut platter = self.working()?;
        let goes_on = platter.begin();
        platter.cached.resize(len as usize, 0);
        platter.lengths.push(len as usize);
        if goes_on { Ok(()) } else { Err(went()) }
    }

    fn sync(&self) -> Result<()> {
        let mut platter = self.working()?;
        if !platter.begin() {
            return Err(went());
        }
        if platter.told.syncs.is_multiple_of(STRETCH) {
            platter.is_lying = platter.chance.next() % 1_000 < platter.lies;
        }
        platter.told.syncs += 1;
        if platter.is_lying {
            platter.told.lies += 1;
            return Ok(());
        }
        let Platter { durable, cached, written, lengths, .. } = &mut *platter;
        durable.resize(cached.len(), 0);
        for (sector, _) in std::mem::take(written) {
            let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(cached.len()));
            if from < to {
                durable[from..to].copy_from_slice(&cached[from..to]);
            }
        }
        lengths.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut platter = self.working()?;
        let goes_on = platter.begin();
        let (from, to) = (offset as usize, offset as usize + data.len());
        let Platter { cached, written, .. } = &mut *platter;
        cached.get_mut(from..to).ok_or(ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        for sector in from / SECTOR..to.div_ceil(SECTOR) {
            let end = ((sector + 1) * SECTOR).min(cached.len());
            written.entry(sector).or_default().push(cached[sector * SECTOR..end].to_vec());
        }
        if goes_on { Ok(()) } else { Err(went()) }
    }
}

#[test]
fn what_was_synced_stays_and_the_rest_comes_back_in_parts() {
    let (mut parts, mut whole, mut nothing) = (0, 0, 0);
    for seed in 0..200 {
        let disk = PowerDisk::new(seed, 0);
        disk.set_len(8 * SECTOR as u64).expect("it grows");
        disk.write(0, &[1; 8 * SECTOR]).expect("it is written");
        disk.sync().expect("it is synced");
        disk.write(SECTOR as u64 / 2, &[2; 7 * SECTOR]).expect("it is written");
        disk.cut();
        assert!(disk.write(0, &[3]).is_err() && disk.sync().is_err() && disk.read(0, &mut [0]).is_err());
        disk.restore();
        let mut bytes = [0; 8 * SECTOR];
        disk.read(0, &mut bytes).expect("it is read");
        assert!(bytes.iter().all(|byte| [1, 2].contains(byte)));
        assert_eq!((bytes[0], bytes[8 * SECTOR - 1]), (1, 1), "what was not written over is as it was");
        match (1..7).filter(|n| bytes[n * SECTOR] == 2).count() {
            0 => nothing += 1,
            6 => whole += 1,
            _ => parts += 1,
        }
        for sector in 1..7 {
            let sector = &bytes[sector * SECTOR..(sector + 1) * SECTOR];
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
    }
    assert!(parts > 50 && whole > 20 && nothing > 20, "{parts} {whole} {nothing}");
    let liar = PowerDisk::new(1, 1_000);
    liar.set_len(4).and_then(|()| liar.write(0, &[1; 4])).and_then(|()| liar.sync()).expect("it says so");
    assert_eq!(liar.told().lies, 1);
    liar.cut_after(1);
    assert!(liar.sync().is_err() && !liar.is_on(), "the power goes in the middle of it");
}
