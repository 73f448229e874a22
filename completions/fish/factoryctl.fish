# Written by docs/generate.py with shtab; change docs/completions.py instead.

# Prints the names in the daemon's answer; the argument is the members they are in.
function _factoryctl_names
  set -l typed (commandline -opc)
  set -l place
  for i in (seq 2 (count $typed))
    switch $typed[$i]
      case --socket --config --state-dir --runtime-dir
        set -a place $typed[$i] $typed[(math $i + 1)]
      case '--socket=*' '--config=*' '--state-dir=*' '--runtime-dir=*'
        set -a place $typed[$i]
    end
  end
  timeout 2 $typed[1] $place --json status 2>/dev/null |
    tr ',{' '\n\n' | sed -n '/^ *"issues":/,/^ *"handoffs":/ s/^ *"\('$argv[1]'\)": *"\([^"\\]*\)".*/\2/p'
end
function _factoryctl_issues
  _factoryctl_names 'key'
end
function _factoryctl_targets
  _factoryctl_names 'key\|name'
end

# Parse current commandline:
# - _shtab_factoryctl_cmdpath=(sub)command path seen so far
# - _shtab_factoryctl_npos=number of positional arguments given after it
# - options are skipped based on _shtab_factoryctl_opts_with_value & _shtab_factoryctl_commands lists
function _shtab_factoryctl_scan
  set -g _shtab_factoryctl_cmdpath ''
  set -g _shtab_factoryctl_npos 0
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
        if contains -- $t $_shtab_factoryctl_opts_with_value
          set expect_value 1
        end
        continue
      case '*'
        if test $_shtab_factoryctl_npos -eq 0
          set -l candidate $t
          if test -n "$_shtab_factoryctl_cmdpath"
            set candidate "$_shtab_factoryctl_cmdpath $t"
          end
          if contains -- $candidate $_shtab_factoryctl_commands
            set -g _shtab_factoryctl_cmdpath $candidate
            continue
          end
        end
        set -g _shtab_factoryctl_npos (math $_shtab_factoryctl_npos + 1)
    end
  end
end

# Condition helper: true if the current (sub)command path equals the given one.
function _shtab_factoryctl_using
  _shtab_factoryctl_scan
  test "$_shtab_factoryctl_cmdpath" = "$argv"
end

set -g _shtab_factoryctl_commands status submit kill logs events history explain health loop-status freeze thaw retry release pause resume doctor restart reap-orphans shutdown kill-loop
set -g _shtab_factoryctl_opts_with_value --config --grace --issue --limit --lines --reason --run --runtime-dir --since --socket --state-dir -n

complete -c factoryctl -e
complete -c factoryctl -f

complete -c factoryctl -n _shtab_factoryctl_using -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n _shtab_factoryctl_using -l version -d 'show program'"'"'s version number and exit'
complete -c factoryctl -n _shtab_factoryctl_using -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n _shtab_factoryctl_using -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n _shtab_factoryctl_using -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n _shtab_factoryctl_using -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n _shtab_factoryctl_using -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a status -d 'show the daemon, its sources, issues and agents'
complete -c factoryctl -n '_shtab_factoryctl_using status' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using status' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using status' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using status' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using status' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using status' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using status' -l watch -d 'show it again whenever it changes'
complete -c factoryctl -n '_shtab_factoryctl_using status; and test $_shtab_factoryctl_npos -ge 0' -ka "(_factoryctl_targets)" -d 'an issue or an agent'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a submit -d 'put issues into the factory'
complete -c factoryctl -n '_shtab_factoryctl_using submit' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using submit' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using submit' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using submit' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using submit' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using submit' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using submit; and test $_shtab_factoryctl_npos -ge 0' -ka "(__fish_complete_path (commandline -ct))" -d 'an issue; - reads it from stdin'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a kill -d 'end issues with all their agents, and prove that nothing is left'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l all -d 'end every issue'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l yes -d 'do not ask before ending every issue'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l grace -x -d 'time to end by itself (30s, 2m)'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l now -d 'give no time at all'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '_shtab_factoryctl_using kill' -l no-wait -d 'return once stopping has begun'
complete -c factoryctl -n '_shtab_factoryctl_using kill; and test $_shtab_factoryctl_npos -ge 0' -ka "(_factoryctl_targets)" -d 'an issue or an agent'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a logs -d 'show an agent'"'"'s output'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -s f -l follow -d 'go on until the run ends'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -s n -l lines -x -d 'the last N lines (100)'
complete -c factoryctl -n '_shtab_factoryctl_using logs' -l run -x -d 'a run other than the newest'
complete -c factoryctl -n '_shtab_factoryctl_using logs; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_targets)" -d 'an agent, or an issue that has only one'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a events -d 'show what happened'
complete -c factoryctl -n '_shtab_factoryctl_using events' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using events' -s f -l follow -d 'go on with what happens next'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l since -x -d 'only those numbered above SEQ'
complete -c factoryctl -n '_shtab_factoryctl_using events' -l issue -xka "(_factoryctl_issues)" -d 'only those of one issue'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a history -d 'show finished issues, or all that one issue went through'
complete -c factoryctl -n '_shtab_factoryctl_using history' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using history' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using history' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using history' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using history' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using history' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using history' -s n -l limit -x -d 'the newest N (50)'
complete -c factoryctl -n '_shtab_factoryctl_using history; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_issues)" -d 'only this one, with all it did'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a explain -d 'say why an issue is dispatched, or why not'
complete -c factoryctl -n '_shtab_factoryctl_using explain' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using explain' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using explain' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using explain' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using explain' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using explain' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using explain; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_issues)" -d 'its key, or the name of one of its agents'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a health -d 'say whether the daemon makes progress'
complete -c factoryctl -n '_shtab_factoryctl_using health' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using health' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using health' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using health' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using health' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using health' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a loop-status -d 'say whether the daemon makes progress'
complete -c factoryctl -n '_shtab_factoryctl_using loop-status' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using loop-status' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using loop-status' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using loop-status' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using loop-status' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using loop-status' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a freeze -d 'have an issue stand still with all its agents'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using freeze' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '_shtab_factoryctl_using freeze; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_issues)" -d 'its key, or the name of one of its agents'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a thaw -d 'have a frozen issue go on'
complete -c factoryctl -n '_shtab_factoryctl_using thaw' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using thaw' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using thaw' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using thaw' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using thaw' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using thaw' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using thaw; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_issues)" -d 'its key, or the name of one of its agents'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a retry -d 'have an ended issue begin anew, with all its attempts'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using retry' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '_shtab_factoryctl_using retry; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_issues)" -d 'its key, or the name of one of its agents'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a release -d 'end an issue as done, its work being done elsewhere'
complete -c factoryctl -n '_shtab_factoryctl_using release' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using release' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using release' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using release' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using release' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using release' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using release' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '_shtab_factoryctl_using release; and test $_shtab_factoryctl_npos -eq 0' -ka "(_factoryctl_issues)" -d 'its key, or the name of one of its agents'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a pause -d 'dispatch nothing new; what runs goes on'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using pause' -l reason -x -d 'why, for the record'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a resume -d 'go on dispatching'
complete -c factoryctl -n '_shtab_factoryctl_using resume' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using resume' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using resume' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using resume' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using resume' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using resume' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a doctor -d 'say what this machine offers, what is wrong and what to do'
complete -c factoryctl -n '_shtab_factoryctl_using doctor' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using doctor' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using doctor' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using doctor' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using doctor' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using doctor' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a restart -d 'replace the daemon, with --keep-agents while its agents go on'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using restart' -l keep-agents -d 'the agents go on meanwhile'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a reap-orphans -d 'end agents that nobody looks after, with or without a daemon'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using reap-orphans' -l dry-run -d 'say what would be done'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a shutdown -d 'stop the daemon and every agent'
complete -c factoryctl -n '_shtab_factoryctl_using shutdown' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using shutdown' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using shutdown' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using shutdown' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using shutdown' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using shutdown' -l json -d 'answer in JSON, for programs'
complete -c factoryctl -n '_shtab_factoryctl_using; and test $_shtab_factoryctl_npos -eq 0' -a kill-loop -d 'stop the daemon and every agent'
complete -c factoryctl -n '_shtab_factoryctl_using kill-loop' -s h -l help -d 'show this help message and exit'
complete -c factoryctl -n '_shtab_factoryctl_using kill-loop' -l socket -xka "(__fish_complete_path (commandline -ct))" -d 'its control socket'
complete -c factoryctl -n '_shtab_factoryctl_using kill-loop' -l config -xka "(__fish_complete_path (commandline -ct))" -d 'its configuration'
complete -c factoryctl -n '_shtab_factoryctl_using kill-loop' -l state-dir -xka "(__fish_complete_directories)" -d 'its state directory'
complete -c factoryctl -n '_shtab_factoryctl_using kill-loop' -l runtime-dir -xka "(__fish_complete_directories)" -d 'the directory of its socket'
complete -c factoryctl -n '_shtab_factoryctl_using kill-loop' -l json -d 'answer in JSON, for programs'
