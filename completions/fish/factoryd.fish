# Written by docs/generate.py with shtab; change docs/completions.py instead.


# Parse current commandline:
# - _shtab_factoryd_cmdpath=(sub)command path seen so far
# - _shtab_factoryd_npos=number of positional arguments given after it
# - options are skipped based on _shtab_factoryd_opts_with_value & _shtab_factoryd_commands lists
function _shtab_factoryd_scan
  set -g _shtab_factoryd_cmdpath ''
  set -g _shtab_factoryd_npos 0
  set -l tokens (commandline -opc)
  set -e tokens[1]
  set -l expect_value 0
  for t in $tokens
    if test $expect_value -eq 1
      set expect_value 0
      continue
    end
    switch "$t"
      case '--*=*'
        continue
      case '-*'
        if contains -- $t $_shtab_factoryd_opts_with_value
          set expect_value 1
        end
        continue
      case '*'
        if test $_shtab_factoryd_npos -eq 0
          set -l candidate $t
          if test -n "$_shtab_factoryd_cmdpath"
            set candidate "$_shtab_factoryd_cmdpath $t"
          end
          if contains -- $candidate $_shtab_factoryd_commands
            set -g _shtab_factoryd_cmdpath $candidate
            continue
          end
        end
        set -g _shtab_factoryd_npos (math $_shtab_factoryd_npos + 1)
    end
  end
end

# Condition helper: true if the current (sub)command path equals the given one.
function _shtab_factoryd_using
  _shtab_factoryd_scan
  test "$_shtab_factoryd_cmdpath" = "$argv"
end

set -g _shtab_factoryd_commands run check-config doctor events history reap
set -g _shtab_factoryd_opts_with_value --config --in-force --issue --iterations --limit --runtime-dir --since --state-dir -n

complete -c factoryd -e
complete -c factoryd -f

complete -c factoryd -n _shtab_factoryd_using -s h -l help -d 'show this help message and exit'
complete -c factoryd -n _shtab_factoryd_using -l version -d 'show program'"'"'s version number and exit'
complete -c factoryd -n _shtab_factoryd_using -l config -xka "(__fish_complete_path (commandline -ct))" -d 'the configuration'
complete -c factoryd -n _shtab_factoryd_using -l state-dir -xka "(__fish_complete_directories)" -d 'what is kept'
complete -c factoryd -n _shtab_factoryd_using -l runtime-dir -xka "(__fish_complete_directories)" -d 'socket, heartbeat'
complete -c factoryd -n _shtab_factoryd_using -l once -d 'end when nothing is ready, running or cooling down'
complete -c factoryd -n _shtab_factoryd_using -l iterations -x -d 'ask the sources N times (1..5), then end as with --once'
complete -c factoryd -n _shtab_factoryd_using -l dry-run -d 'print what would be dispatched, and touch nothing'
complete -c factoryd -n '_shtab_factoryd_using; and test $_shtab_factoryd_npos -eq 0' -a run -d 'supervise in the foreground (what happens without a verb)'
complete -c factoryd -n '_shtab_factoryd_using run' -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '_shtab_factoryd_using run' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'the configuration'
complete -c factoryd -n '_shtab_factoryd_using run' -l state-dir -xka "(__fish_complete_directories)" -d 'what is kept'
complete -c factoryd -n '_shtab_factoryd_using run' -l runtime-dir -xka "(__fish_complete_directories)" -d 'socket, heartbeat'
complete -c factoryd -n '_shtab_factoryd_using run' -l once -d 'end when nothing is ready, running or cooling down'
complete -c factoryd -n '_shtab_factoryd_using run' -l iterations -x -d 'ask the sources N times (1..5), then end as with --once'
complete -c factoryd -n '_shtab_factoryd_using run' -l dry-run -d 'print what would be dispatched, and touch nothing'
complete -c factoryd -n '_shtab_factoryd_using; and test $_shtab_factoryd_npos -eq 0' -a check-config -d 'print the effective configuration as TOML'
complete -c factoryd -n '_shtab_factoryd_using check-config' -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '_shtab_factoryd_using check-config' -l config -xka "(__fish_complete_path (commandline -ct))" -d FILE
complete -c factoryd -n '_shtab_factoryd_using; and test $_shtab_factoryd_npos -eq 0' -a doctor -d 'look at everything that a daemon depends on'
complete -c factoryd -n '_shtab_factoryd_using doctor' -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '_shtab_factoryd_using doctor' -l config -xka "(__fish_complete_path (commandline -ct))" -d FILE
complete -c factoryd -n '_shtab_factoryd_using doctor' -l state-dir -xka "(__fish_complete_directories)" -d DIR
complete -c factoryd -n '_shtab_factoryd_using doctor' -l runtime-dir -xka "(__fish_complete_directories)" -d DIR
complete -c factoryd -n '_shtab_factoryd_using doctor' -l json -d 'answer in JSON, for programs'
complete -c factoryd -n '_shtab_factoryd_using doctor' -l in-force -x -d 'what a running daemon uses, as `factoryctl doctor` has asked it'
complete -c factoryd -n '_shtab_factoryd_using; and test $_shtab_factoryd_npos -eq 0' -a events -d 'print the facts of the ledger, which is only read'
complete -c factoryd -n '_shtab_factoryd_using events' -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '_shtab_factoryd_using events' -l state-dir -xka "(__fish_complete_directories)" -d DIR
complete -c factoryd -n '_shtab_factoryd_using events' -l json -d 'answer in JSON, a line for each item'
complete -c factoryd -n '_shtab_factoryd_using events' -l since -x -d 'those above SEQ'
complete -c factoryd -n '_shtab_factoryd_using events' -l issue -x -d 'only those of one issue'
complete -c factoryd -n '_shtab_factoryd_using; and test $_shtab_factoryd_npos -eq 0' -a history -d 'print finished issues from the ledger, which is only read'
complete -c factoryd -n '_shtab_factoryd_using history' -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '_shtab_factoryd_using history' -l state-dir -xka "(__fish_complete_directories)" -d DIR
complete -c factoryd -n '_shtab_factoryd_using history' -l json -d 'answer in JSON, a line for each item'
complete -c factoryd -n '_shtab_factoryd_using history' -s n -l limit -x -d 'the newest N (50)'
complete -c factoryd -n '_shtab_factoryd_using; and test $_shtab_factoryd_npos -eq 0' -a reap -d 'end what a dead daemon has left running'
complete -c factoryd -n '_shtab_factoryd_using reap' -s h -l help -d 'show this help message and exit'
complete -c factoryd -n '_shtab_factoryd_using reap' -l config -xka "(__fish_complete_path (commandline -ct))" -d FILE
complete -c factoryd -n '_shtab_factoryd_using reap' -l state-dir -xka "(__fish_complete_directories)" -d DIR
complete -c factoryd -n '_shtab_factoryd_using reap' -l runtime-dir -xka "(__fish_complete_directories)" -d DIR
complete -c factoryd -n '_shtab_factoryd_using reap' -l dry-run -d 'say what would be done'
complete -c factoryd -n '_shtab_factoryd_using reap' -l force -d 'kill a daemon that hangs, first'
complete -c factoryd -n '_shtab_factoryd_using reap' -l after-stop -d 'for ExecStopPost=: after a failure, leave the agents to the next daemon'
complete -c factoryd -n '_shtab_factoryd_using reap' -l quiet -d 'say nothing when there was nothing to end'
complete -c factoryd -n '_shtab_factoryd_using reap' -l json -d 'answer in JSON, for programs'
