//! The options of the user's command line, `#SBATCH` lines and Slurm's own variables.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use aifb_schema::names::option;

/// Bytes of an option's value: the longest path that Linux takes.
pub(crate) const VALUE_BYTES: usize = 4096;

/// Number of `--aifb-set` that are kept: ten times what a recipe has fields worth changing.
pub(crate) const SETS: usize = 256;

/// Part of every variable in which Slurm passes one of our options on.
const INHERITED: &[u8] = b"SLURM_SPANK_OPTION_aifb_";

/// One of the four options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `--aifb-recipe`.
    Recipe,
    /// `--aifb-set`.
    Set,
    /// `--aifb-runs`.
    Runs,
    /// `--aifb-wait`.
    Wait,
}

impl Kind {
    /// All options, in the order in which `sbatch --help` shows them.
    pub(crate) const ALL: [Self; 4] = [Self::Recipe, Self::Set, Self::Runs, Self::Wait];

    /// The number by which Slurm's callback tells the options apart.
    pub(crate) fn number(self) -> i32 {
        self as i32
    }

    /// The option of a number.
    pub(crate) fn of(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The option's name, without dashes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Recipe => option::RECIPE,
            Self::Set => option::SET,
            Self::Runs => option::RUNS,
            Self::Wait => option::WAIT,
        }
    }

    /// Name of its argument and its line in `sbatch --help`.
    pub(crate) fn texts(self) -> (&'static CStr, &'static CStr) {
        match self {
            Self::Recipe => (c"FILE", c"start the services of this aifb recipe with the job"),
            Self::Set => (c"PATH=VALUE", c"change one field of the recipe (may be repeated)"),
            Self::Runs => (c"DIR", c"folder for the run folders (default: aifb-runs)"),
            Self::Wait => (c"healthy|none", c"what the job's script waits for"),
        }
    }
}

/// The options that the user gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Path of the recipe; the last one given wins.
    pub(crate) recipe: Option<CString>,
    /// `PATH=VALUE`, in the order given.
    pub(crate) sets: Vec<CString>,
    /// Root of the run folders.
    pub(crate) runs: Option<CString>,
    /// What the script waits for; checked by `prepare`.
    pub(crate) wait: Option<CString>,
}

impl Options {
    pub(crate) const NONE: Self = Self { recipe: None, sets: Vec::new(), runs: None, wait: None };

    /// Whether any option was given.
    pub(crate) fn used(&self) -> bool {
        *self != Self::NONE
    }

    /// Whether `later` asks for something else than what was given before.
    ///
    /// In a heterogeneous job Slurm reads its variables again for each component, so the same
    /// value may come again.
    pub(crate) fn changed_by(&self, later: &Self) -> bool {
        let same = |new: &Option<CString>, old: &Option<CString>| new.is_none() || new == old;
        !(same(&later.recipe, &self.recipe)
            && same(&later.runs, &self.runs)
            && same(&later.wait, &self.wait)
            && later.sets.iter().all(|set| self.sets.contains(set)))
    }

    /// Stores one value.
    ///
    /// # Errors
    /// Why the value cannot be used; nothing is stored then.
    pub(crate) fn store(&mut self, kind: Kind, value: &CStr) -> Result<(), String> {
        let problem = |cause: &str| format!("reading option --{}: {cause}", kind.name());
        let bytes = value.to_bytes();
        if bytes.is_empty() {
            return Err(problem("it is empty"));
        }
        if bytes.len() > VALUE_BYTES {
            return Err(problem("longer than 4096 bytes"));
        }
        if bytes.contains(&b'\n') {
            return Err(problem("it contains a line break"));
        }
        let value = value.to_owned();
        match kind {
            Kind::Recipe => self.recipe = Some(value),
            Kind::Runs => self.runs = Some(value),
            Kind::Wait => self.wait = Some(value),
            Kind::Set if self.sets.len() >= SETS => {
                return Err(problem("given more than 256 times"));
            }
            Kind::Set => self.sets.push(value),
        }
        Ok(())
    }
}

/// Whether Slurm passes one of our options on in a variable of this name.
pub(crate) fn is_inherited(name: &OsStr) -> bool {
    name.as_bytes().windows(INHERITED.len()).any(|part| part == INHERITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_options_match() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(kind.number()), Some(kind));
        }
        assert_eq!(Kind::of(4), None);
        assert_eq!(Kind::of(-1), None);
    }

    #[test]
    fn last_recipe_wins_and_sets_add_up() {
        let mut options = Options::default();
        for (kind, value) in [
            (Kind::Recipe, c"a.yaml"),
            (Kind::Set, c"x=1"),
            (Kind::Recipe, c"b.yaml"),
            (Kind::Set, c"y=2"),
        ] {
            options.store(kind, value).unwrap();
        }
        assert_eq!(options.recipe.as_deref(), Some(c"b.yaml"));
        assert_eq!(options.sets, [c"x=1".to_owned(), c"y=2".to_owned()]);
    }

    #[test]
    fn unusable_values_are_refused_by_name() {
        let long = CString::new(vec![b'a'; VALUE_BYTES + 1]).unwrap();
        let mut options = Options::default();
        for (value, expected) in [
            (c"", "it is empty"),
            (c"a\nb", "it contains a line break"),
            (&*long, "longer than 4096 bytes"),
        ] {
            let problem = options.store(Kind::Recipe, value).unwrap_err();
            assert_eq!(problem, format!("reading option --aifb-recipe: {expected}"));
        }
        assert!(!options.used());
        options.store(Kind::Recipe, &CString::new(vec![b'a'; VALUE_BYTES]).unwrap()).unwrap();
        assert!(options.used());
    }

    #[test]
    fn sets_are_bounded() {
        let mut options = Options::default();
        for _ in 0..SETS {
            options.store(Kind::Set, c"a=b").unwrap();
        }
        options.store(Kind::Set, c"a=b").unwrap_err();
    }

    #[test]
    fn a_repeated_value_is_no_change() {
        let mut first = Options::default();
        first.store(Kind::Recipe, c"a.yaml").unwrap();
        first.store(Kind::Set, c"x=1").unwrap();
        let mut again = Options::default();
        assert!(!first.changed_by(&again));
        again.store(Kind::Recipe, c"a.yaml").unwrap();
        again.store(Kind::Set, c"x=1").unwrap();
        assert!(!first.changed_by(&again));
        again.store(Kind::Set, c"x=2").unwrap();
        assert!(first.changed_by(&again));
        assert!(Options::NONE.changed_by(&first));
    }

    #[test]
    fn names_in_which_slurm_passes_options_on() {
        let is = |name: &str| is_inherited(OsStr::new(name));
        assert!(is("_SLURM_SPANK_OPTION_aifb_aifb_recipe"));
        assert!(is("SLURM_SPANK__SLURM_SPANK_OPTION_aifb_aifb_set"));
        assert!(!is("SLURM_SPANK__SLURM_SPANK_OPTION_other_recipe"));
        assert!(!is("SLURM_SPANK_AIFB_SNAPSHOT"));
    }
}
