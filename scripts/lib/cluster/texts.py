"""The configuration files of a cluster."""

SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={nodes}
AuthType=auth/munge
AuthInfo=socket={home}/munge/munge.sock
CryptoType=crypto/munge
SlurmUser=root
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool-%n
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd-%n.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=defer,batch_sched_delay=0,sched_interval=1,bf_interval=1
MinJobAge={min_job_age}
KillWait=2
MessageTimeout=5
SlurmdTimeout=10
ReturnToService=2
MaxArraySize=10001
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
{accounting}
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{nodes}-{last_node}] CPUs=32 RealMemory=64000
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=high Nodes=n[1-2] MaxTime=INFINITE PriorityTier=10
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={home}/munge/munge.sock
AccountingStorageEnforce=associations,limits,qos"""

DBD = """\
AuthType=auth/munge
AuthInfo=socket={home}/munge/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={db}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
LogFile={home}/slurmdbd.log
PidFile={home}/slurmdbd.pid
"""

SQL = """\
create user if not exists 'slurm'@'%' identified by '{password}';
create user if not exists 'slurm'@'localhost' identified by '{password}';
grant all on slurm.* to 'slurm'@'%';
grant all on slurm.* to 'slurm'@'localhost';
"""

# By SHLVL bash takes itself for no login's first shell and reads no ~/.bashrc: what the machine's root has there is
# slow, and a session killed in the middle of it may leave locks that hold up all others.
SSHD = """\
Port {ssh}
ListenAddress 127.0.0.1
HostKey {home}/ssh/host_key
AuthorizedKeysFile {home}/ssh/user_key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PidFile {home}/sshd.pid
MaxSessions 100
MaxStartups 100
SetEnv SHLVL=1 SLURM_CONF={home}/slurm.conf {mark}={home} "PATH={home}/bin:{path}"
Subsystem sftp internal-sftp
"""
